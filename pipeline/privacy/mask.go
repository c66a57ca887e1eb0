package privacy

import "strings"

// masked stands for a value of which nothing is shown.
const masked = "***"

// mask returns what people may see of a value. How many stars there are never
// depends on the value's length:
//
//	name      first character          测*
//	number    first one and last two   0***************00
//	phone     first three, last four   100****0000
//	address   first three characters   测试省***
//	others    nothing                  ***
//
// A value too short for its pattern to hide most of it is masked wholly.
func mask(f Field, value string) string {
	k := traitOf[f].kind
	runes := []rune(normalise(k, value))
	n := len(runes)
	switch {
	case k == personName && n >= 2:
		return string(runes[:1]) + "*"
	case k == idNumber && n >= 8:
		return string(runes[:1]) + strings.Repeat("*", 15) + string(runes[n-2:])
	case k == phone && n == 11:
		return string(runes[:3]) + "****" + string(runes[7:])
	case k == address && n >= 9:
		return string(runes[:3]) + masked
	}
	return masked
}
