package replica

// What tests call: the parsers of what comes off the wire, and who makes the bucket.
var (
	ParseReport = parseReport
	ParseNote   = parseNote
	OpenBucket  = openBucket
)
