package jobs

import (
	"path"

	corev1 "k8s.io/api/core/v1"
)

// meetDir is where the containers of a containerSet meet.
const meetDir = "/.cairn/meet"

// join puts the other containers of a containerSet beside main: the worker in
// each of them runs its program when the one in main says so. Their variables,
// mounts and resources are Kubernetes' to see to.
func join(p *Plan, s *corev1.PodSpec, members []corev1.Container) {
	if len(members) == 0 {
		return
	}
	s.Volumes = append(s.Volumes, corev1.Volume{Name: "cairn-meet", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	meet := corev1.VolumeMount{Name: "cairn-meet", MountPath: meetDir}
	main := &s.Containers[0]
	main.VolumeMounts = append(main.VolumeMounts, meet)
	main.Args = append(main.Args, "-meet="+meetDir)
	for _, c := range members {
		im := p.Members[c.Image]
		program := append(append([]string{}, c.Command...), c.Args...)
		if len(c.Command) == 0 {
			program = append([]string{}, im.Entrypoint...)
			if len(c.Args) > 0 {
				program = append(program, c.Args...)
			} else {
				program = append(program, im.Command...)
			}
		}
		if im.Reference != "" {
			c.Image = im.Reference
		}
		c.Command = []string{path.Join(binDir, binary)}
		c.Args = []string{"-member=" + c.Name, "-meet=" + meetDir, "--"}
		for _, w := range program {
			c.Args = append(c.Args, escaped(w))
		}
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "cairn-bin", MountPath: binDir, ReadOnly: true}, meet)
		confine(p, &c, s, im.User)
		s.Containers = append(s.Containers, c)
	}
}

// confine has a container pass where the restricted profile is enforced.
func confine(p *Plan, c *corev1.Container, s *corev1.PodSpec, user string) {
	if !p.Restricted {
		return
	}
	if c.SecurityContext == nil {
		c.SecurityContext = &corev1.SecurityContext{}
	}
	sc := c.SecurityContext
	sc.AllowPrivilegeEscalation = ptr(false)
	if sc.Capabilities == nil {
		sc.Capabilities = &corev1.Capabilities{}
	}
	sc.Capabilities.Drop = []corev1.Capability{"ALL"}
	if sc.RunAsUser == nil && s.SecurityContext.RunAsUser == nil && root(user) {
		sc.RunAsUser = ptr(int64(65532)) // or it would not start
	}
}
