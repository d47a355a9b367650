// Package argo runs examples of Argo's documents to their end, on the real work
// server with a real worker, and compares what became of them with what is
// expected.
//
// It owns which outcome each example has: the first line of our own, in
// testdata/argo, and for Argo's own, which are no part of this repository,
// testdata/published.txt. It promises that each example that compiles is run,
// or that the table says for want of what it is not.
package argo
