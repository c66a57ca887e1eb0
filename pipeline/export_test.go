package pipeline

// Queued returns how many events of an account wait for a place to be worked on.
func (w *Worker) Queued(account string) int {
	n := 0
	for _, a := range w.accounts {
		if a.Name == account {
			a.slots.mu.Lock()
			n += a.slots.live.Len() + a.slots.behind.Len()
			a.slots.mu.Unlock()
		}
	}
	return n
}
