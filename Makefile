# build   the static binary, bin/p2pagent      fuzz   each fuzz target for FUZZTIME
# test    everything a change has to pass      bench  the measured table of the README (root)
# race    the concurrent packages, -race       demo   five agents on loopback, one upstream copy
# lint    gofmt, vet, staticcheck, budgets     lab    the acceptance test in network namespaces (root)
# clean   removes what these left              packages  deb, rpm and tarball, in bin/packages

FUZZTIME ?= 10s
VERSION  ?= $(shell git describe --tags --exact-match 2>/dev/null)
STATIC   := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

# Packages that start goroutines. The others are pure, or only wrap these.
CONCURRENT := ./internal/stall ./internal/cluster ./internal/census ./internal/desired ./internal/kube ./internal/page ./internal/rollout ./pkg/agent ./pkg/cachefs ./pkg/gateway ./pkg/hub/... ./pkg/seeder ./pkg/swarm ./pkg/xet

.PHONY: build test race lint fuzz bench demo lab packages clean

build:
	$(STATIC) -o bin/p2pagent ./cmd/p2pagent

test:
	go vet ./...
	go test ./...
	$(MAKE) race
	@if [ -x scripts/clients/run ]; then echo scripts/clients/run; scripts/clients/run; fi
	@echo scripts/xet/run; scripts/xet/run

race:
	go test -race -short $(CONCURRENT)

lint:
	@unformatted=$$(gofmt -l cmd internal pkg scripts); if [ -n "$$unformatted" ]; then echo "gofmt -w these:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags p2ptest,genman ./...
	go tool -modfile=tools/go.mod staticcheck ./...
	go run ./scripts/budgets

# One target at a time: the go command fuzzes one. A failing input lands in the
# package's testdata/fuzz and is a test from then on.
fuzz:
	@set -e; grep -rl '^func Fuzz' --include='*_test.go' cmd internal pkg scripts | sort | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$file); do \
			echo "$$(dirname $$file) $$target"; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file); \
		done; \
	done

bench:
	scripts/bench/run

demo:
	scripts/demo/run

lab:
	scripts/lab/run

packages:
	VERSION=$(VERSION) scripts/packages/build

clean:
	rm -rf bin .cache
