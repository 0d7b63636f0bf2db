// Package settings is what users decide about an agent: the file agent.json in the
// workspace, and the environment, which wins.
//
// The file is read strictly: a key that is not a setting and a value that cannot be are
// errors that say where. A Source looks at it between runs, and where a change is wrong
// goes on with the last settings that were right, so that a slip of the pen neither
// silences an agent nor changes what it does.
package settings
