package sinktest

import "testing"

// Checks are the checks of the suite by name.
func Checks() map[string]func(testing.TB, Factory) {
	all := map[string]func(testing.TB, Factory){}
	for _, c := range checks {
		all[c.name] = c.run
	}
	return all
}

// Personal visits every personal value of a record.
var Personal = personal
