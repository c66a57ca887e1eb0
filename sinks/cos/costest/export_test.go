package costest

// Combine is for tests.
var Combine = combine
