package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cairn.dev/cairn/test/cluster/keeper/wire"
)

// writeControlPlane writes the keys, tokens and kubeconfigs.
func (c *Cluster) writeControlPlane(n network) error {
	cert, err := c.writeKeys(n)
	if err != nil {
		return err
	}
	c.ca = cert
	tokens := c.Token + `,admin,admin,"system:masters"` + "\n"
	for i := range c.opts.Nodes {
		name := nodeName(i)
		tokens += fmt.Sprintf("%s-token,system:node:%s,%s,\"system:nodes\"\n", name, name, name)
	}
	files := map[string]string{
		"tokens.csv": tokens,
		"kubeconfig": c.kubeconfig("admin", c.Token),
	}
	for i := range c.opts.Nodes {
		files[nodeName(i)+".kubeconfig"] = c.kubeconfig(nodeName(i), nodeName(i)+"-token")
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	// One program under the names it is called by.
	bin := filepath.Join(c.Dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"} {
		if err := os.Symlink(c.programs["kubernetes"], filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	return nil
}

// writeKeys writes the key that signs the tokens of service accounts, and the
// API server's certificate. Made here and on an elliptic curve, both are there
// at once; the API server would take a second for its own.
func (c *Cluster) writeKeys(n network) (certificate []byte, err error) {
	write := func(name string, blocks ...*pem.Block) ([]byte, error) {
		var b []byte
		for _, p := range blocks {
			b = append(b, pem.EncodeToMemory(p)...)
		}
		return b, os.WriteFile(filepath.Join(c.Dir, name), b, 0o600)
	}
	newKey := func(name string) (*ecdsa.PrivateKey, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, err
		}
		_, err = write(name, &pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
		return key, err
	}
	if _, err := newKey("sa.key"); err != nil {
		return nil, err
	}
	key, err := newKey("apiserver.key")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: c.Name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, // it is its own authority
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(kubernetesService), net.ParseIP(n.machine(0))},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return write("apiserver.crt", &pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (c *Cluster) kubeconfig(user, token string) string {
	return strings.NewReplacer("SERVER", c.Server, "CA", c.CA, "CLUSTER", c.Name, "USER", user, "TOKEN", token).Replace(`apiVersion: v1
kind: Config
clusters:
- name: CLUSTER
  cluster: {server: "SERVER", certificate-authority: "CA"}
users:
- name: USER
  user: {token: "TOKEN"}
contexts:
- name: CLUSTER
  context: {cluster: CLUSTER, user: USER}
current-context: CLUSTER
`)
}

// process is a program of the control plane's machine.
func (c *Cluster) process(name, wait string, args ...string) *wire.Process {
	return &wire.Process{Name: name, Path: filepath.Join(c.Dir, "bin", name), Args: args, Wait: wait,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + c.Dir, "TMPDIR=" + os.TempDir()},
		Log: filepath.Join(c.Dir, name+".log")}
}

// alive answers as soon as clients may connect.
const alive = "https://127.0.0.1:443/livez"

// controlPlane is etcd, API server, controller manager and scheduler. Ports
// are the usual ones: nobody else is in the machine's network.
func (c *Cluster) controlPlane(n network) []*wire.Process {
	at := func(name string) string { return filepath.Join(c.Dir, name) }
	const etcd = "http://127.0.0.1:" + etcdPort
	listens, found := etcd, etcd
	if c.opts.EtcdDoor {
		listens, found = etcd+",http://"+n.machine(0)+":"+etcdPort, "http://"+etcdDoor
	}
	client := []string{"--kubeconfig=" + c.Kubeconfig, "--authentication-kubeconfig=" + c.Kubeconfig, "--authorization-kubeconfig=" + c.Kubeconfig,
		"--leader-elect=false", "--bind-address=127.0.0.1",
		// The default of 20 requests a second makes tests wait, and nothing else.
		"--kube-api-qps=5000", "--kube-api-burst=5000"}
	return []*wire.Process{
		c.process("etcd", "", "--data-dir="+at("etcd"), "--listen-client-urls="+listens, "--advertise-client-urls="+etcd,
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=default=http://127.0.0.1:2380",
			"--unsafe-no-fsync", "--log-level=warn"),
		c.process("kube-apiserver", "", append([]string{"--etcd-servers=" + found, "--bind-address=0.0.0.0", "--secure-port=443", "--advertise-address=" + n.machine(0),
			"--tls-cert-file=" + c.CA, "--tls-private-key-file=" + at("apiserver.key"), "--cert-dir=" + at("certs"),
			"--service-cluster-ip-range=10.96.0.0/24",
			// The first one issues, and differs from cluster to cluster.
			"--service-account-issuer=" + c.Server, "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + at("sa.key"), "--service-account-signing-key-file=" + at("sa.key"),
			"--token-auth-file=" + at("tokens.csv"), "--authorization-mode=Node,RBAC", "--allow-privileged=true",
			"--kubelet-preferred-address-types=InternalIP"}, c.opts.APIServer...)...),
		c.process("kube-controller-manager", alive, append(append([]string{"--secure-port=10257", "--cert-dir=" + at("manager"),
			"--service-account-private-key-file=" + at("sa.key"), "--root-ca-file=" + c.CA}, client...), c.opts.ControllerManager...)...),
		c.process("kube-scheduler", alive, append([]string{"--secure-port=10259", "--cert-dir=" + at("scheduler")}, client...)...),
	}
}

// machine is a machine without processes.
func (c *Cluster) machine(n network, i int) wire.Machine {
	return wire.Machine{Hostname: nodeName(i), Address: n.machine(i) + "/24", Gateway: n.host()}
}

func nodeName(i int) string { return fmt.Sprintf("node%d", i+1) }
