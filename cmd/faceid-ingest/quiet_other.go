//go:build !linux

package main

// forbidDumps does nothing: only Linux lets a process forbid it in this way.
func forbidDumps() error { return nil }
