package jobs

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func claimOf(run, name string) corev1.VolumeSource {
	return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: ClaimName(run, name)}}
}

// Claims are the claims that the run has to itself, as its task describes them:
// they are made before the first pod, and deleted when the run has ended; if it
// did not end well, and they are not to go always, when the run is forgotten.
func Claims(p Plan) ([]*corev1.PersistentVolumeClaim, error) {
	u, err := read(p.Demand.Shape.Pod)
	if err != nil {
		return nil, err
	}
	var out []*corev1.PersistentVolumeClaim
	for _, c := range u.claims {
		labels := maps.Clone(c.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		if !u.always {
			labels[labelKeep] = "failed"
		}
		maps.Copy(labels, map[string]string{LabelCluster: p.Cluster, LabelServer: p.ID, LabelRun: p.Demand.Run, "app.kubernetes.io/managed-by": "cairn"})
		out = append(out, &corev1.PersistentVolumeClaim{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
			ObjectMeta: metav1.ObjectMeta{Name: ClaimName(p.Demand.Run, c.Name), Namespace: p.Demand.Namespace, Labels: labels, Annotations: c.Annotations}, Spec: c.Spec})
	}
	return out, nil
}

// ClaimName is the name of a claim that a run has to itself.
func ClaimName(run, volume string) string { return "cairn-" + run + "-" + volume }

// together has the pods of a run that mount a claim of its own share a node,
// where the claim is for one node at a time (ReadWriteOnce). A volume that lies
// on a node sees to that itself; one that is attached does not, and the pods on
// other nodes would wait for it without end. It is a wish and no condition: who
// selects other nodes for a later task has it there, once the volume is free.
func together(p *Plan, s *corev1.PodSpec, claims []corev1.PersistentVolumeClaim) {
	once := func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && slices.ContainsFunc(claims, func(c corev1.PersistentVolumeClaim) bool {
			return ClaimName(p.Demand.Run, c.Name) == v.PersistentVolumeClaim.ClaimName && slices.Contains(c.Spec.AccessModes, corev1.ReadWriteOnce) &&
				!slices.Contains(c.Spec.AccessModes, corev1.ReadWriteMany)
		})
	}
	if !slices.ContainsFunc(s.Volumes, once) {
		return
	}
	if s.Affinity == nil {
		s.Affinity = &corev1.Affinity{}
	}
	if s.Affinity.PodAffinity != nil || s.Affinity.PodAntiAffinity != nil { // its author has thought of it
		return
	}
	s.Affinity.PodAffinity = &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 100, PodAffinityTerm: corev1.PodAffinityTerm{
		TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{LabelRun: p.Demand.Run}}}}}}
}
