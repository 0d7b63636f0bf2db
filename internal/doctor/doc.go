// Package doctor says whether machines can run on this host, and what to type where
// they cannot: it is behind `aegis doctor`.
//
// A Check is one requirement. All are made, whatever the others say, so that one
// run names everything there is to mend. Checks look and never change anything;
// none takes longer than its timeout. What only a driver can know, the verdict on
// the accelerator, comes in as a function: the package imports no driver.
package doctor
