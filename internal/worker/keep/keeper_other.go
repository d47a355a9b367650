//go:build !linux

package keep

// Main does nothing here.
func Main() {}
