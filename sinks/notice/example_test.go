package notice_test

import (
	"encoding/json"
	"fmt"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// What a receiver makes of a message.
func Example() {
	cfg := privacy.DefaultConfig()
	for _, f := range privacy.Fields() {
		cfg.Fields[f] = privacy.Drop
	}
	cfg.Fields[privacy.Mobile] = privacy.Plain
	policy, err := privacy.NewPolicy(cfg, nil)
	if err != nil {
		panic(err)
	}
	r := sinktest.Archived(sinktest.Result(0)) // in the daemon, results come from pipeline/faceid
	m, err := notice.OfResult(policy, r, notice.Fields{privacy.Mobile, privacy.IDCard})
	if err != nil {
		panic(err)
	}

	var event notice.Event
	if err := json.Unmarshal(m.Body, &event); err != nil {
		panic(err)
	}
	switch event.Type {
	case notice.TypeStored:
		var stored notice.Result
		if err := json.Unmarshal(event.Data, &stored); err != nil {
			panic(err)
		}
		fmt.Println(stored.Token, "passed:", stored.Verdict.Passed)
		fmt.Println(stored.Personal)
		fmt.Println(stored.Assets[0].Field, stored.Assets[0].Stored[0].Size)
	case notice.TypeErased:
		fmt.Println("erase", event.Subject)
	}
	// Output:
	// TOKEN-00000000-ABCD passed: true
	// map[mobile:[{虚构·mobile·0号 }]]
	// IdCardData.OcrFront 900
}
