package main

import (
	"encoding/json"
	"net/http"
	"strconv"

	"p2pagent/pkg/hub/hubtest"
)

// stats are what /stats shows.
type stats struct {
	Body        int64                        `json:"body_bytes"`   // of file content so far, as handed to the kernel; those of the store included
	Stored      int64                        `json:"stored_bytes"` // of the store among them
	Model       int64                        `json:"model_bytes"`  // distinct content of all repositories
	Store       int64                        `json:"store_bytes"`  // what the store has, each chunk once, compressed
	MaxCoverage int                          `json:"max_coverage"`
	Files       map[string]hubtest.FileStats `json:"files"` // of bodies that have ended
	Xorbs       map[string]hubtest.FileStats `json:"xorbs"` // the same
	Calls       map[hubtest.Route]int64      `json:"calls"`
	Clients     map[string]int64             `json:"clients"` // body bytes by address
	Dropped     int64                        `json:"dropped"` // requests too many to be remembered
}

func (s *server) stats() stats {
	hub := s.hub.Stats()
	out := stats{Model: s.model, Store: s.hub.StoreSize(), MaxCoverage: hub.MaxCoverage, Files: hub.Files, Xorbs: hub.Xorbs, Calls: hub.Calls}
	s.log.totals(&out)
	return out
}

func (s *server) controls() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.stats()) })
	mux.HandleFunc("GET /requests", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.log.requests()) })
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, _ *http.Request) {
		s.hub.ResetStats()
		s.hub.Heal()
		s.log.reset()
		s.faults.reset()
		answer(w, s.stats())
	})
	mux.HandleFunc("POST /stall", s.addStall)
	mux.HandleFunc("POST /rate", s.setRate)
	mux.Handle("/-/", s.hub) // hubtest's own
	return mux
}

func (s *server) addStall(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	x := stall{path: q.Get("path"), times: 1}
	var err error
	if x.after, err = strconv.ParseInt(q.Get("after"), 10, 64); err != nil || x.path == "" {
		http.Error(w, "want path=FILE&after=OFFSET[&times=N]", http.StatusBadRequest)
		return
	}
	if n, err := strconv.Atoi(q.Get("times")); err == nil {
		x.times = n
	}
	s.faults.add(x)
	answer(w, "ok")
}

func (s *server) setRate(w http.ResponseWriter, r *http.Request) {
	rate, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
	if err != nil || rate < 0 {
		http.Error(w, "want bytes=N", http.StatusBadRequest)
		return
	}
	s.faults.setRate(rate)
	answer(w, "ok")
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that left has no use for the error
}
