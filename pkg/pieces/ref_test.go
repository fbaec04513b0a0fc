package pieces

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseRef(t *testing.T) {
	commit := strings.Repeat("0a", 20)
	for _, test := range []struct {
		in       string
		kind     Kind
		name     string
		revision string
	}{
		{"org/name", Model, "org/name", "main"},
		{"gpt2", Model, "gpt2", "main"},
		{"datasets/org/name", Dataset, "org/name", "main"},
		{"datasets/squad", Dataset, "squad", "main"},
		{"spaces/org/name", Space, "org/name", "main"},
		{"models/org/name", Model, "org/name", "main"},
		{"hf://org/name", Model, "org/name", "main"},
		{"hf://datasets/org/name@v1.0", Dataset, "org/name", "v1.0"},
		{"org/name@" + commit, Model, "org/name", commit},
		{"org/name@refs/pr/7", Model, "org/name", "refs/pr/7"},
		{"org/name@feature/x-1_2.3", Model, "org/name", "feature/x-1_2.3"},
		{"org/name@a@b", Model, "org/name", "a@b"},
		{"meta-llama/Llama-3.1-8B_Instruct", Model, "meta-llama/Llama-3.1-8B_Instruct", "main"},
		{"_o/_n", Model, "_o/_n", "main"},
		{"0/1", Model, "0/1", "main"},
		{"a.b/c.d", Model, "a.b/c.d", "main"},
		{"org/git", Model, "org/git", "main"},
		{"models", Model, "models", "main"},
		{"datasets", Model, "datasets", "main"},
		{"org/datasets", Model, "org/datasets", "main"},
		{"datasets/models", Dataset, "models", "main"},
		{strings.Repeat("o", 96) + "/" + strings.Repeat("n", 96), Model, strings.Repeat("o", 96) + "/" + strings.Repeat("n", 96), "main"},
	} {
		ref, err := ParseRef(test.in)
		want := Ref{Repo: Repo{Kind: test.kind, Name: test.name}, Revision: test.revision}
		if err != nil || ref != want {
			t.Errorf("ParseRef(%q) = %+v, %v, want %+v", test.in, ref, err, want)
			continue
		}
		if again, err := ParseRef(ref.String()); err != nil || again != ref {
			t.Errorf("ParseRef(%q) = %+v, %v, want what it came from, %+v", ref.String(), again, err, ref)
		}
		if again, err := ParseFolder(ref.Repo.Folder()); err != nil || again != ref.Repo {
			t.Errorf("ParseFolder(%q) = %+v, %v, want %+v", ref.Repo.Folder(), again, err, ref.Repo)
		}
	}
}

var uglyRefs = []string{
	"", " ", "/", "//", "@", "@main", "hf://", "hf://@main", "org/", "/name", "org//name", "/org/name", "org/name/",
	"a/b/c", "datasets/", "datasets//x", "datasets/a/b/c", "models/datasets/x", "models/models/x", "datasets/datasets/x",
	"datasets/spaces/x", "datasets/models/x", "spaces/datasets/x", "org/name@", "org/name@ ", "org/name@@", "org/name@/main", "org/name@main/",
	"org/name@a//b", "org/name@..", "org/name@../../etc", "org/name@a/../b", "org/name@a/./b", "org/name@.hidden", "org/name@-x",
	"org/name@a b", "org/name@a\nb", "org/name@main\n", "org/name@main\x00", "org/name@a:b", "org/name@a~1", "org/name@a^", "org/name@a?b",
	"org/name@a*", "org/name@a[b]", "org/name@a\\b", "org/name@%2e%2e", "org/name@é", "org/name@" + strings.Repeat("a", 256),
	"org/na--me", "o--rg/name", "org/na..me", "o..rg/name", "..", "../name", "org/..", "./name", "org/.", ".org/name", "org/.name",
	"-org/name", "org/-name", "org-/name", "org/name-", "org./name", "org/name.", "org/name.git", "org.git/name", "name.git",
	"org/na me", "org/na\tme", "org/name\n", "\norg/name", "org/name\x00", "org\\name", "org/na:me", "org/na%2fme", "org/na?me", "org/na#me",
	"órg/name", "org/名前", "org/na\u200bme", "org/\xff\xfe", "https://huggingface.co/org/name", "hf:/org/name", "HF://org/name",
	"hf://hf://org/name", "hf://models/hf://x", "~/name", "$HOME/name", "org/na'me", "org/na;me", "org/*", "org/name,other",
	strings.Repeat("o", 97) + "/n", "o/" + strings.Repeat("n", 97), strings.Repeat("a", 1<<16), strings.Repeat("a/", 1000), strings.Repeat("@", 1000),
}

func TestParseRefRefuses(t *testing.T) {
	for _, s := range uglyRefs {
		if ref, err := ParseRef(s); err == nil || ref != (Ref{}) {
			t.Errorf("ParseRef(%.80q) = %+v, want an error", s, ref)
		}
	}
}

func TestParseFolder(t *testing.T) {
	for folder, want := range map[string]string{
		"models--gpt2": "gpt2", "models--org--name": "org/name", "datasets--org--name": "datasets/org/name", "spaces--x": "spaces/x",
	} {
		if repo, err := ParseFolder(folder); err != nil || repo.String() != want {
			t.Errorf("ParseFolder(%q) = %q, %v, want %q", folder, repo, err, want)
		}
	}
	for _, folder := range []string{
		"", "models", "models--", "models--a--", "models----a", "models--a--b--c", "models--a----b", "model--a", "--a--b",
		"models--datasets--x", "datasets--datasets--x", "models--a/b", "models--a/b--c", "models--..", "models--a-", "models--a--..",
		"Models--a", "models-a", "models--a--b.git", ".locks", "version.txt", "models--a\x00", "models--" + strings.Repeat("a", 97),
	} {
		if repo, err := ParseFolder(folder); err == nil || repo != (Repo{}) {
			t.Errorf("ParseFolder(%q) = %q, want an error", folder, repo)
		}
	}
}

func TestParseCommit(t *testing.T) {
	good := "0123456789abcdef0123456789abcdef01234567"
	if c, err := ParseCommit(good); err != nil || string(c) != good || !IsCommit(good) {
		t.Errorf("ParseCommit(%q) = %q, %v", good, c, err)
	}
	for _, s := range []string{"", "main", good[:39], good + "0", strings.ToUpper(good), good + "\n", "g" + good[1:], sha256OfEmpty} {
		if c, err := ParseCommit(s); err == nil || c != "" || IsCommit(s) {
			t.Errorf("ParseCommit(%q) = %q", s, c)
		}
	}
}

func TestKindNames(t *testing.T) {
	for k, want := range map[Kind]string{
		Model: "model models ", Dataset: "dataset datasets datasets/", Space: "space spaces spaces/", 7: "kind(7) kind(7)s kind(7)s/",
	} {
		if got := fmt.Sprint(k, " ", k.Plural(), " ", k.URLPrefix()); got != want {
			t.Errorf("kind %d is %q, want %q", uint8(k), got, want)
		}
	}
	if o := (&Outline{Repo: Repo{Kind: 7, Name: "a/b"}, Commit: Commit(gitOfEmpty)}); o.Validate() == nil {
		t.Error("an outline of a kind that does not exist is valid")
	}
}

func ExampleParseRef() {
	ref, err := ParseRef("datasets/org/name@refs/pr/3")
	fmt.Println(ref.Repo.Kind, ref.Repo.Name, ref.Revision, ref.Repo.Folder(), err)
	// Output: dataset org/name refs/pr/3 datasets--org--name <nil>
}
