package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// clean makes text from elsewhere harmless on a terminal: control characters,
// invalid UTF-8 and marks that reorder text are written as escapes.
func clean(s string) string {
	var out strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&out, `\x%02x`, s[i])
		case r == ' ' || unicode.IsGraphic(r) && !unicode.Is(unicode.Zs, r):
			out.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&out, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			fmt.Fprintf(&out, `\U%08x`, r)
		}
	}
	return out.String()
}

// counted writes a number of things; one is no plural.
func counted(n int, thing string) string {
	return fmt.Sprintf("%d %s%s", n, thing, unless(n == 1, "s"))
}

// bytesText says a number of bytes as people do, in powers of 1000 like disks
// and the Hub's pages.
func bytesText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), 0
	for v >= 999.5 && unit < 5 {
		v /= 1000
		unit++
	}
	format := "%.0f %cB"
	if v < 9.95 {
		format = "%.1f %cB"
	}
	return fmt.Sprintf(format, v, " kMGTP"[unit])
}

// spanText says a duration in two units at most.
func spanText(d time.Duration) string {
	s := int(d.Round(time.Second).Seconds())
	switch {
	case s < 100:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %02d s", s/60, s%60)
	case s < 48*3600:
		return fmt.Sprintf("%d h %02d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d days", s/86400)
}

// joined writes words with commas between them.
func joined[T ~string](words []T) string {
	return strings.Join(texts(words), ", ")
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// table writes rows in columns, each cell cleaned. The first row is the heading.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = clean(cell)
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// terminalWidth returns the columns of stderr, or a safe guess.
func terminalWidth(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 20 {
			return width
		}
	}
	return 80
}
