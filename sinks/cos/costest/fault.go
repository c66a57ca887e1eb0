package costest

import (
	"net/http"
	"time"
)

// Fault is one way in which requests fail. Of the fields that choose requests, the
// empty ones choose all; of those that say what happens, one is set.
type Fault struct {
	// Action is as in Request.
	Action, Bucket, Key string
	// Times is how many requests fail; 0 is all until the fault is lifted.
	Times int

	// Status answers with an error of that code, before the request has any
	// effect. RetryAfter is sent with it.
	Status     int
	Code       string
	RetryAfter string
	// Drop closes the connection instead of an answer, before the request has any
	// effect.
	Drop bool
	// LoseAnswer does the same when the request has had its effect.
	LoseAnswer bool
	// Hang answers nothing until the client gives up or the server closes.
	Hang bool
	// Delay lets the request wait that long.
	Delay time.Duration
	// CutBody ends a GET's body after that many bytes, at least one.
	CutBody int64
	// WrongCRC answers with another CRC-64 than the stored one.
	WrongCRC bool
	// CopyError answers a copy or the completion of an upload with status 200 and an
	// error in the body, and has no effect.
	CopyError bool
}

type activeFault struct {
	Fault
	left int
}

// Inject lets requests fail from now on. lift ends that.
func (s *Server) Inject(f Fault) (lift func()) {
	active := &activeFault{f, f.Times}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, active)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, other := range s.faults {
			if other == active {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
				return
			}
		}
	}
}

// Die lets every request fail as if the machine were off, until the returned
// function is called.
func (s *Server) Die() (revive func()) { return s.Inject(Fault{Drop: true}) }

// faultOf finds what is to happen to a request, the latest fault first.
func (s *Server) faultOf(r Request) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.faults) - 1; i >= 0; i-- {
		f := s.faults[i]
		if f.Action != "" && f.Action != r.Action || f.Bucket != "" && f.Bucket != r.Bucket || f.Key != "" && f.Key != r.Key {
			continue
		}
		if f.Times > 0 {
			if f.left == 0 {
				continue
			}
			f.left--
		}
		return f.Fault
	}
	return Fault{}
}

// before does what a fault does ahead of its request's effect.
func (s *Server) before(r *http.Request, f Fault) *failure {
	var wait <-chan time.Time
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		wait = timer.C
	}
	if f.Hang || f.Delay > 0 {
		select {
		case <-wait:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-s.closing:
			panic(http.ErrAbortHandler)
		}
	}
	if f.Drop {
		panic(http.ErrAbortHandler)
	}
	if f.Status != 0 {
		return &failure{status: f.Status, code: f.Code, message: "as the test asked", retryAfter: f.RetryAfter}
	}
	return nil
}

// lostAnswer is a ResponseWriter whose answer nobody gets.
type lostAnswer struct{ header http.Header }

func (l lostAnswer) Header() http.Header         { return l.header }
func (l lostAnswer) Write(p []byte) (int, error) { return len(p), nil }
func (l lostAnswer) WriteHeader(int)             {}
