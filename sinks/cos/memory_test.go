package cos_test

func childMain() bool { return false }
