package cluster

import "fmt"

// network is the addresses of the cluster in one slot. They are out of the
// block that is set aside for measuring devices, which no real network uses:
// 198.18.SLOT.0/24 for this computer (.1) and the machines (.2 and up),
// 198.19.SLOT.0/24 for pods.
type network int

// kubernetesService is the address at which pods find the API server: the
// first of the default range for Services.
const kubernetesService = "10.96.0.1"

func (n network) host() string         { return fmt.Sprintf("198.18.%d.1", n) }
func (n network) machine(i int) string { return fmt.Sprintf("198.18.%d.%d", n, i+2) }

// pods is the network of the pods of one of so many nodes, and its gateway.
func (n network) pods(i, nodes int) (subnet, gateway string) {
	size, bits := 256, 24
	for size*nodes > 256 {
		size, bits = size/2, bits+1
	}
	return fmt.Sprintf("198.19.%d.%d/%d", n, i*size, bits), fmt.Sprintf("198.19.%d.%d", n, i*size+1)
}
