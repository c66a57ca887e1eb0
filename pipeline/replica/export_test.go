package replica

// ParseReport is what the fuzz test calls.
var ParseReport = parseReport
