// Package wiretest is an HTTP server that answers as no server should, and has what it
// was told in all of it, so that a test finds what a client prints of an answer.
package wiretest

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// Forms returns a value in the forms in which it may be printed.
func Forms(value string) []string {
	escaped := strings.Trim(fmt.Sprintf("%+q", value), `"`)
	return []string{
		value, escaped, url.QueryEscape(value), url.PathEscape(value),
		base64.StdEncoding.EncodeToString([]byte(value)), base64.RawURLEncoding.EncodeToString([]byte(value)),
		hex.EncodeToString([]byte(value)), strings.ToUpper(hex.EncodeToString([]byte(value))),
	}
}

// Trick is a way to answer.
type Trick struct {
	Name string
	// Answer returns the bytes to send. loot is what is to be found, without line breaks;
	// word is of letters, digits and dashes alone.
	Answer func(loot, word string) string
	// Close ends the connection after the answer.
	Close bool
}

func answer(status, headers, body string) string {
	return "HTTP/1.1 " + status + "\r\n" + headers + "\r\n" + body
}

func sized(status, headers, body string) string {
	return answer(status, fmt.Sprintf("%sContent-Length: %d\r\n", headers, len(body)), body)
}

const asJSON = "Content-Type: application/json\r\n"

// Tricks are all of them.
func Tricks() []Trick {
	var list []Trick
	keep := func(name string, f func(x, w string) string) { list = append(list, Trick{name, f, false}) }
	end := func(name string, f func(x, w string) string) { list = append(list, Trick{name, f, true}) }
	keep("length shorter than the body", func(x, _ string) string {
		return answer("200 OK", asJSON+"Content-Length: 2\r\n", "{}"+x)
	})
	keep("two answers", func(x, _ string) string { return sized("200 OK", asJSON, "{}") + sized("200 "+x, asJSON, x) })
	keep("an answer and no HTTP", func(x, _ string) string { return sized("200 OK", asJSON, "{}") + x + "\r\n\r\n" })
	keep("408 without a request", func(x, _ string) string { return sized("500 OK", "", "") + sized("408 "+x, "X: "+x+"\r\n", x) })
	end("no HTTP", func(x, _ string) string { return x + "\r\n\r\n" })
	end("version", func(x, w string) string { return "HTTP/" + w + " 200 " + x + "\r\n\r\n" })
	end("status code", func(x, w string) string { return "HTTP/1.1 " + w + " " + x + "\r\n\r\n" })
	keep("status text", func(x, _ string) string { return sized("500 "+x, "", "") })
	keep("refused with a text", func(x, _ string) string { return sized("403 "+x, "Date: "+x+"\r\n", x) })
	end("header without a colon", func(x, _ string) string { return answer("200 OK", x+"\r\n", "") })
	end("header with a space in its name", func(x, _ string) string { return answer("200 OK", x+" : "+x+"\r\n", "") })
	end("length that is no number", func(x, _ string) string { return answer("200 OK", "Content-Length: "+x+"\r\n", "") })
	end("two lengths", func(_, w string) string {
		return answer("200 OK", "Content-Length: 1\r\nContent-Length: "+w+"\r\n", "")
	})
	end("transfer encoding", func(x, _ string) string { return answer("200 OK", "Transfer-Encoding: "+x+"\r\n", "") })
	end("chunk that is none", func(x, _ string) string {
		return answer("200 OK", asJSON+"Transfer-Encoding: chunked\r\n", x+"\r\n")
	})
	end("trailer without a colon", func(x, _ string) string {
		return answer("200 OK", asJSON+"Transfer-Encoding: chunked\r\nTrailer: X\r\n", "2\r\n{}\r\n0\r\n"+x+"\r\n\r\n")
	})
	keep("trailer", func(x, _ string) string {
		return answer("200 OK", asJSON+"Transfer-Encoding: chunked\r\nTrailer: X\r\n", "2\r\n{}\r\n0\r\nX: "+x+"\r\n\r\n")
	})
	keep("gzip that is none", func(x, _ string) string { return sized("200 OK", asJSON+"Content-Encoding: gzip\r\n", x) })
	keep("unknown encoding", func(x, _ string) string { return sized("200 OK", asJSON+"Content-Encoding: "+x+"\r\n", x) })
	keep("unknown type", func(x, w string) string { return sized("200 OK", "Content-Type: text/"+w+"; x="+x+"\r\n", x) })
	keep("redirect", func(x, _ string) string {
		return sized("307 "+x, "Location: http://127.0.0.1:1/"+url.PathEscape(x)+"\r\n", "")
	})
	keep("redirect to no URL", func(x, _ string) string { return sized("302 Found", "Location: http://%zz"+x+"\r\n", "") })
	keep("informational", func(x, _ string) string {
		return answer("103 "+x, "Link: "+x+"\r\n", "") + sized("500 "+x, "", "")
	})
	end("many informational", func(x, _ string) string {
		return strings.Repeat(answer("103 "+x, "Link: "+x+"\r\n", ""), 40) + sized("500 "+x, "", "")
	})
	end("switched protocols", func(x, _ string) string {
		return answer("101 "+x, "Connection: Upgrade\r\nUpgrade: "+x+"\r\n", x)
	})
	end("cut off", func(x, _ string) string { return answer("200 OK", asJSON+"Content-Length: 100000\r\n", x) })
	keep("wait", func(x, _ string) string { return sized("429 "+x, "Retry-After: "+x+"\r\n", x) })
	keep("cookie", func(x, _ string) string { return sized("500 OK", "Set-Cookie: a="+x+"\r\n", x) })
	end("long header", func(x, _ string) string {
		return answer("200 OK", "X: "+strings.Repeat(x, 1+(11<<20)/len(x))+"\r\n", "")
	})
	keep("JSON that is none", func(x, _ string) string { return sized("200 OK", asJSON, `{"Response":{"Text":{"Name":"`+x) })
	keep("JSON of another type", func(_, w string) string {
		return sized("200 OK", asJSON, fmt.Sprintf(`{"Response":{"Text":[{"ErrCode":%q,"Name":{%q:1}}],"RequestId":%q}}`, w, w, w))
	})
	keep("error code", func(_, w string) string {
		return sized("200 OK", asJSON, fmt.Sprintf(`{"Response":{"Error":{"Code":%q,"Message":%q},"RequestId":%q}}`, w, w, w))
	})
	keep("error code below a known one", func(_, w string) string {
		return sized("200 OK", asJSON, fmt.Sprintf(`{"Response":{"Error":{"Code":"InternalError.%s","Message":%q},"RequestId":%q}}`, w, w, w))
	})
	keep("media that is none", func(_, w string) string {
		return sized("200 OK", asJSON, fmt.Sprintf(`{"Response":{"Text":{"ErrCode":0},"VideoData":{"LivenessVideo":"%s*"},%q:"%s"},"RequestId":%q}`, strings.Repeat(w, 500), w, strings.Repeat(w, 9000), w))
	})
	keep("XML error", func(_, w string) string {
		return sized("403 Forbidden", "Content-Type: application/xml\r\nX-Cos-Request-Id: "+w+"\r\n", "<Error><Code>"+w+"</Code><Message>"+w+"</Message><Resource>"+w+"</Resource><RequestId>"+w+"</RequestId></Error>")
	})
	keep("XML that is none", func(x, w string) string {
		return sized("200 OK", "Content-Type: application/xml\r\n", "<A"+w+"><Size>"+w+"</Size>&"+w+";</"+w+">"+x)
	})
	keep("OTLP partly refused", func(x, _ string) string {
		text := []byte(x[:min(len(x), 100)])
		message := append([]byte{0x08, 0x01, 0x12, byte(len(text))}, text...)
		return sized("200 OK", "Content-Type: application/x-protobuf\r\n", string(append([]byte{0x0a, byte(len(message))}, message...)))
	})
	return list
}

// Server answers each request for a role with the next trick.
type Server struct {
	listener net.Listener
	role     func(*http.Request) string
	loot     []string
	only     []Trick

	mu    sync.Mutex
	asked map[string]int
	open  map[net.Conn]bool
	serve sync.WaitGroup
}

// Start starts a server on a loopback port, which the test's end stops. role names what
// a request is for, "" what is politely told that there is nothing, and loot are the values that answers hold, beside what was sent.
func Start(t testing.TB, loot []string, role func(*http.Request) string, tricks ...Trick) *Server {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{listener: listener, role: role, loot: loot, only: tricks, asked: map[string]int{}, open: map[net.Conn]bool{}}
	s.serve.Go(s.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		s.mu.Lock()
		for conn := range s.open {
			_ = conn.Close()
		}
		s.mu.Unlock()
		s.serve.Wait()
	})
	return s
}

// URL is where it listens.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Asked returns how many requests there were for a role.
func (s *Server) Asked(role string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[role]
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.open[conn] = true
		s.mu.Unlock()
		s.serve.Go(func() { s.answer(conn) })
	}
}

func (s *Server) answer(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		s.mu.Lock()
		delete(s.open, conn)
		s.mu.Unlock()
	}()
	reader := bufio.NewReader(conn)
	for {
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(request.Body)
		role := s.role(request)
		if role == "" {
			status := "200 OK"
			if request.Method == http.MethodGet || request.Method == http.MethodHead {
				status = "404 Not Found"
			}
			_, _ = io.WriteString(conn, sized(status, "", ""))
			continue
		}
		t, turn := s.next(role)
		// The values take turns in being the first, for some places show but a beginning.
		turn %= len(s.loot)
		values := append(append([]string{}, s.loot[turn:]...), s.loot[:turn]...)
		loot := strings.Join(values, " ") + " " + string(bytes.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, body[:min(len(body), 8<<10)]))
		if _, err := io.WriteString(conn, t.Answer(loot, hex.EncodeToString([]byte(values[0])))); err != nil || t.Close {
			return
		}
	}
}

func (s *Server) next(role string) (t Trick, turn int) {
	tricks := s.only
	if len(tricks) == 0 {
		tricks = Tricks()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.asked[role]
	s.asked[role]++
	return tricks[n%len(tricks)], n / len(tricks)
}
