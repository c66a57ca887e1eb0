package result

// IntentionMode is how the person was asked for consent.
type IntentionMode string

const (
	// IntentionOff means the flow did not ask.
	IntentionOff IntentionMode = ""
	// IntentionQuestion means questions answered aloud (IntentionVerifyType "0").
	IntentionQuestion IntentionMode = "question"
	// IntentionNod means a nod in answer to a read text ("1").
	IntentionNod IntentionMode = "nod"
	// IntentionReadAloud means a text read aloud ("2").
	IntentionReadAloud IntentionMode = "read_aloud"
	// IntentionUnknown is a mode this version does not know; its outcome cannot
	// be told, so the check is not passed.
	IntentionUnknown IntentionMode = "unknown"
)

// Verdict is the outcome of a check. It holds no personal data.
//
// Where intention is on, the intention result decides (FACTS §1.2,
// IsVerifyIntention); the face step has then passed too, because the intention
// result is null when it failed.
type Verdict struct {
	// Passed is the final outcome.
	Passed bool
	// Unreadable says that the answer has an outcome which cannot be read, so that Passed
	// is false for want of knowing better.
	Unreadable bool
	// Code and Message are Text.ErrCode and Text.ErrMsg of the face step.
	Code    int64
	Message string
	// Liveness and Compare are Text.LiveStatus and Text.Comparestatus; nil
	// where the flow did not get that far.
	Liveness        *int64
	LivenessMessage string
	Compare         *int64
	CompareMessage  string
	// Similarity is Text.Sim, "0.00".."100.00", or empty. 70 and above means
	// the same person.
	Similarity string
	// CompareLibrary is which photo the face was compared with.
	CompareLibrary string
	// LivenessMode is 0 unknown, 1 digits, 2 action, 3 silent, 4 flash,
	// 5 near and far.
	LivenessMode int64
	// LivenessTags are the reasons of the Plus edition for a rejection, "01" to
	// "14".
	LivenessTags []string

	Intention IntentionMode
	// IntentionCode and IntentionMessage are the outcome of the intention step
	// in the numbering of its mode; nil where there is none.
	IntentionCode    *int64
	IntentionMessage string
}
