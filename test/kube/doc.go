// Package kube tests runs on Kubernetes against real API servers: custom
// resources handed in with kubectl, what becomes of them, and what cairn
// install prints.
//
// It owns no code but tests. It does not test what runs are (package work), nor
// what a pod needs on a node other than by starting it.
package kube
