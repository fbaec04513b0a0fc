package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The types of configuration values. Each is a pflag.Value; Type is what help
// shows and what a file's value is checked against.

// sizeValue is a number of bytes (a second), such as 100M or 1.5GiB; 0 means no
// limit.
type sizeValue int64

var sizeUnits = []struct {
	suffix string
	factor float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {"t", 1e12}, {"b", 1}, {"", 1},
}

func (v *sizeValue) Set(s string) error {
	text := strings.ToLower(strings.TrimSpace(s))
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(n >= 0) || n*u.factor >= 1<<62 {
			break
		}
		*v = sizeValue(n * u.factor)
		return nil
	}
	return fmt.Errorf("want a size such as 100MB or 1GiB, got %q", s)
}

func (v *sizeValue) String() string { return strconv.FormatInt(int64(*v), 10) }
func (v *sizeValue) Type() string   { return "size" }

// listValue is a list of words: a flag given several times, or commas.
type listValue []string

func (v *listValue) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		if word = strings.TrimSpace(word); word != "" {
			*v = append(*v, word)
		}
	}
	return nil
}

func (v *listValue) String() string { return strings.Join(*v, ",") }
func (v *listValue) Type() string   { return "list" }

// labelsValue is what the operator says about the node: k=v, several times or
// with commas.
type labelsValue map[string]string

func (v *labelsValue) Set(s string) error {
	for pair := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		k, val, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || k == "" {
			return fmt.Errorf("want key=value, got %q", pair)
		}
		if *v == nil {
			*v = labelsValue{}
		}
		(*v)[k] = val
	}
	return nil
}

func (v *labelsValue) String() string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(*v)) {
		out = append(out, k+"="+(*v)[k])
	}
	return strings.Join(out, ",")
}
func (v *labelsValue) Type() string { return "labels" }

// spanValue is a duration above zero.
type spanValue time.Duration

func (v *spanValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return fmt.Errorf("want a duration such as 30s or 5m, got %q", s)
	}
	*v = spanValue(d)
	return nil
}

func (v *spanValue) String() string {
	if *v == 0 {
		return ""
	}
	return time.Duration(*v).String()
}
func (v *spanValue) Type() string { return "duration" }

// choose sets v to one of the words, or says which there are.
func choose[T ~string](v *T, s string, words ...T) error {
	if slices.Contains(words, T(s)) {
		*v = T(s)
		return nil
	}
	var list strings.Builder
	for i, w := range words {
		switch i {
		case 0:
		case len(words) - 1:
			list.WriteString(" or ")
		default:
			list.WriteString(", ")
		}
		list.WriteString(string(w))
	}
	return fmt.Errorf("want %s, got %q", list.String(), s)
}

// texts are the words of a choice, as a shell completes them.
func texts[T ~string](words []T) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return out
}

// formatValue is how results are written.
type formatValue string

const (
	formatHuman formatValue = "human"
	formatJSON  formatValue = "json"
	formatQuiet formatValue = "quiet"
)

var formats = []formatValue{formatHuman, formatJSON, formatQuiet}

func (v *formatValue) Set(s string) error { return choose(v, s, formats...) }
func (v *formatValue) choices() []string  { return texts(formats) }

func (v *formatValue) String() string { return string(*v) }
func (v *formatValue) Type() string   { return "human|json|quiet" }

// xetValue says whether files come from the Hub's content-addressed store.
type xetValue string

const (
	xetAuto xetValue = "auto"
	xetOff  xetValue = "off"
	xetOnly xetValue = "only"
)

var xetWays = []xetValue{xetAuto, xetOff, xetOnly}

func (v *xetValue) Set(s string) error { return choose(v, s, xetWays...) }
func (v *xetValue) choices() []string  { return texts(xetWays) }

func (v *xetValue) String() string { return string(*v) }
func (v *xetValue) Type() string   { return "choice" }

// offerValue says which files the gateway offers as Xet.
type offerValue string

const (
	offerOff  offerValue = "off"
	offerHuge offerValue = "huge"
	offerAll  offerValue = "all"
)

var offers = []offerValue{offerOff, offerHuge, offerAll}

func (v *offerValue) Set(s string) error { return choose(v, s, offers...) }
func (v *offerValue) choices() []string  { return texts(offers) }

func (v *offerValue) String() string { return string(*v) }
func (v *offerValue) Type() string   { return "choice" }

// logFormat is how the agent logs.
type logFormat string

const (
	logAuto logFormat = "auto"
	logText logFormat = "text"
	logJSON logFormat = "json"
)

var logFormats = []logFormat{logAuto, logText, logJSON}

func (v *logFormat) Set(s string) error { return choose(v, s, logFormats...) }
func (v *logFormat) choices() []string  { return texts(logFormats) }

func (v *logFormat) String() string { return string(*v) }
func (v *logFormat) Type() string   { return "choice" }

// text tells whether lines are for people.
func (v logFormat) text(terminal bool) bool { return v == logText || v == logAuto && terminal }
