// Package doctor finds what is wrong with a node and says what to do about it.
//
// A check is a function of an Env: values, and functions that reach the outside.
// None of them changes anything, and none prints a secret: a token is only known
// to be there or not, of a proxy's URL only the host is shown.
package doctor
