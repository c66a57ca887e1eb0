package envelope

import (
	"regexp"
	"strconv"
	"strings"
)

// A path of the EncryptList is keys with a point between, each with any number of
// indexes: Response.Text.LivenessDetail[0].Idcard (FACTS §1.4).
var (
	pathSyntax = regexp.MustCompile(`^[A-Za-z0-9_-]+(\[[0-9]{1,4}\])*(\.[A-Za-z0-9_-]+(\[[0-9]{1,4}\])*)*$`)
	pathStep   = regexp.MustCompile(`[A-Za-z0-9_-]+|\[[0-9]+\]`)
)

// maxPath bounds a path, in bytes; the longest known one has 39.
const maxPath = 256

// outer is the object that holds an answer. Paths begin with it; a document may
// be the answer with it or without.
const outer = "Response"

// branch is a place in a document that paths lead to or through.
type branch struct {
	// next holds the branches below by key or by index, which is "[0]".
	next map[string]*branch
	// field is the position in the EncryptList of the path that ends here, -1 if
	// none does.
	field int
}

func newBranch() *branch { return &branch{next: map[string]*branch{}, field: -1} }

// down returns the branch below, nil if no path leads there.
func (b *branch) down(step string) *branch {
	if b == nil {
		return nil
	}
	return b.next[step]
}

func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

// parsePaths makes a tree of the paths of an EncryptList.
func parsePaths(list []string) (*branch, error) {
	answer := newBranch()
	for i, path := range list {
		if len(path) > maxPath || !pathSyntax.MatchString(path) {
			// What is not a path is not repeated: it may be anything.
			return nil, malformed("EncryptList[%d] is not a path", i)
		}
		b := answer
		for _, step := range pathStep.FindAllString(strings.TrimPrefix(path, outer+"."), -1) {
			if b.next[step] == nil {
				b.next[step] = newBranch()
			}
			b = b.next[step]
		}
		if b.field >= 0 {
			return nil, malformed("EncryptList has %s twice", path)
		}
		b.field = i
	}
	// Both shapes of a document: with the outer object and without.
	root := newBranch()
	for step, b := range answer.next {
		root.next[step] = b
	}
	if root.next[outer] == nil {
		root.next[outer] = &branch{next: answer.next, field: -1}
	}
	return root, nil
}
