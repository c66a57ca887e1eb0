package config

import _ "embed" // for example and schema

//go:embed example.yaml
var example []byte

//go:embed schema.json
var schema []byte

// Schema returns the JSON schema of the file, for editors. What the schema cannot say,
// Parse checks.
func Schema() []byte { return append([]byte(nil), schema...) }

// Example returns a commented configuration with every key there is. It needs
// the environment variables TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY.
func Example() []byte { return append([]byte(nil), example...) }
