package faceidtest

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Fault is one way in which the API fails. Exactly one of Code, Status, CutAt,
// Delay, Hang, Garbage and Drop is set.
type Fault struct {
	// Token limits the fault to one token; empty means every request.
	Token string
	// InfoType limits the fault to requests with this value, such as "4"; empty means all.
	InfoType string
	// Times is how many requests fail; 0 means all until the fault is lifted.
	Times int

	// Code is an error of the API, sent as it does: with HTTP 200.
	Code string
	// Status is an HTTP status with a gateway's page, and RetryAfter the header of that
	// name that goes with it.
	Status     int
	RetryAfter string
	// CutAt ends the connection after so many bytes of the answer.
	CutAt int64
	// Delay comes before the answer.
	Delay time.Duration
	// Hang answers only when the client has gone.
	Hang bool
	// Garbage is sent, labelled as JSON, in place of the answer.
	Garbage string
	// Drop ends the connection without an answer.
	Drop bool
}

type fault struct {
	Fault
	left atomic.Int64
}

// Fail makes requests with a valid signature fail, until lift is called. Of several
// faults for a request the one that was added first applies.
func (s *Server) Fail(f Fault) (lift func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := &fault{Fault: f}
	one.left.Store(int64(f.Times))
	s.faults = append(s.faults, one)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = slices.DeleteFunc(slices.Clone(s.faults), func(other *fault) bool { return other == one })
	}
}

// ClearFaults ends all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// next returns the fault for a request, or nil.
func (s *Server) next(p parameters) *fault {
	return s.pick(p, func(f *fault) bool { return f.CutAt == 0 })
}

func (s *Server) pick(p parameters, fits func(*fault) bool) *fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.Token != "" && f.Token != p.token() || f.InfoType != "" && f.InfoType != p.InfoType || !fits(f) {
			continue
		}
		if f.Times == 0 || f.left.Add(-1) >= 0 {
			return f
		}
	}
	return nil
}

// serve fails the request; it returns false where the answer still follows.
func (f *fault) serve(w http.ResponseWriter, r *http.Request, requestID string) bool {
	switch {
	case f.Delay > 0:
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
		return false
	case f.Hang:
		<-r.Context().Done()
	case f.Drop:
		panic(http.ErrAbortHandler)
	case f.Code != "":
		refuse(w, requestID, f.Code)
	case f.Status != 0:
		w.Header().Set("Content-Type", "text/html")
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		w.WriteHeader(f.Status)
		_, _ = fmt.Fprintf(w, "<html><body>%s</body></html>", http.StatusText(f.Status))
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, f.Garbage)
	}
	return true
}

// shorten returns w, or a writer that ends the connection after some bytes.
func (s *Server) shorten(w http.ResponseWriter, p parameters) io.Writer {
	if f := s.pick(p, func(f *fault) bool { return f.CutAt > 0 }); f != nil {
		return &cutter{w: w, left: f.CutAt}
	}
	return w
}

type cutter struct {
	w    http.ResponseWriter
	left int64
}

func (c *cutter) Write(p []byte) (int, error) {
	if int64(len(p)) < c.left {
		c.left -= int64(len(p))
		return c.w.Write(p)
	}
	_, _ = c.w.Write(p[:c.left])
	_ = http.NewResponseController(c.w).Flush()
	panic(http.ErrAbortHandler)
}
