package main

import (
	"encoding/hex"
	"os"
	"regexp"
	"strings"

	"p2pagent/pkg/hub"
)

// Nothing that is logged or shown has a secret in it; this is for the day when
// that is not so, and for what users put where we don't expect it.
var secretForms = regexp.MustCompile(
	`\bhf_[A-Za-z0-9]{8,}` + // a token of the Hub
		`|(?i:(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}` +
		`|://[^/\s"@]+@` + // user and password in a URL
		`|(https?://[^\s"?]+)\?[^\s"]+`) // a query may be a signature

const redacted = "REDACTED"

// redactor takes the secrets of this process, and whatever looks like one, out of
// text.
func (s *settings) redactor() func([]byte) []byte {
	var pairs []string
	for _, secret := range s.secrets() {
		pairs = append(pairs, secret, redacted)
	}
	known := strings.NewReplacer(pairs...)
	return func(raw []byte) []byte {
		return secretForms.ReplaceAllFunc([]byte(known.Replace(string(raw))), func(found []byte) []byte {
			if url, _, ok := strings.Cut(string(found), "?"); ok {
				return []byte(url + "?" + redacted)
			}
			if strings.HasPrefix(string(found), "://") {
				return []byte("://" + redacted + "@")
			}
			return []byte(redacted)
		})
	}
}

// secrets returns the token, the swarm key in each form it may be written in, and
// nothing short enough to be found by chance.
func (s *settings) secrets() []string {
	var out []string
	add := func(text string) {
		if text = strings.TrimSpace(text); len(text) >= 8 {
			out = append(out, text)
		}
	}
	token, _ := hub.EnvToken(s.get)()
	add(token)
	if raw, err := os.ReadFile(s.SwarmKeyFile); err == nil && len(raw) <= 1<<10 {
		add(string(raw))
		add(hex.EncodeToString(raw))
	}
	return out
}
