package config

import _ "embed" // for the example

//go:embed example.yaml
var example []byte

// Example returns a commented configuration with every key there is. It needs
// the environment variables TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY.
func Example() []byte { return append([]byte(nil), example...) }
