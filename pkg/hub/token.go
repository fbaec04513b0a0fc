package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// TokenSource returns the token to show to the Hub, "" for none. It is asked
// for every request, so that a token that is replaced on disk is noticed.
type TokenSource func() (string, error)

// TokenError is a token that was asked for and can't be used. Its text never
// holds the token.
type TokenError struct {
	Source string // the variable or the path
	Err    error
}

// Error implements error.
func (e *TokenError) Error() string { return fmt.Sprintf("read token from %s: %v", e.Source, e.Err) }

// Unwrap returns the cause.
func (e *TokenError) Unwrap() error { return e.Err }

// Permanent reports true: somebody has to repair the configuration.
func (e *TokenError) Permanent() bool { return true }

// EnvToken looks where huggingface_hub looks: HF_TOKEN, HUGGING_FACE_HUB_TOKEN,
// the file named by HF_TOKEN_PATH, $HF_HOME/token. White space around a token is
// dropped, and an empty one counts as none. A file that HF_TOKEN_PATH names and
// that can't be read is a *TokenError; a missing default file means anonymous.
func EnvToken(getenv func(string) string) TokenSource {
	return func() (string, error) {
		for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
			if t := strings.TrimSpace(getenv(name)); t != "" {
				return checkToken(t, name)
			}
		}
		if path := getenv("HF_TOKEN_PATH"); path != "" {
			return tokenFile(path, true)
		}
		if home := hfHome(getenv); home != "" {
			return tokenFile(filepath.Join(home, "token"), false)
		}
		return "", nil
	}
}

func tokenFile(path string, named bool) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		if !named {
			return "", nil
		}
		var in *fs.PathError
		if errors.As(err, &in) {
			err = in.Err
		}
		return "", &TokenError{Source: path, Err: err}
	}
	return checkToken(strings.TrimSpace(string(data)), path)
}

// checkToken keeps a token that is no header value away from net/http, which
// would print it in its error.
func checkToken(t, source string) (string, error) {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if strings.ContainsFunc(t, odd) {
		return "", &TokenError{Source: source, Err: errors.New("holds white space, a control character or non-ASCII")}
	}
	return t, nil
}

// hfHome follows huggingface_hub's constants.py.
func hfHome(getenv func(string) string) string {
	if home := getenv("HF_HOME"); home != "" {
		return home
	}
	if cache := getenv("XDG_CACHE_HOME"); cache != "" {
		return filepath.Join(cache, "huggingface")
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".cache", "huggingface")
	}
	return ""
}
