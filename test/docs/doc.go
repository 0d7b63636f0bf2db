// Package docs holds what is written against what is so. It reads the pages that users
// read (README.md, docs/*.md and the README.md of each example), checks their links and
// runs the commands that they show.
//
// A fenced block says in its info string, behind its language, how it is tested:
//
//	```console vm                      run in real VMs, by test/e2e
//	```console fake                    run on machines that are goroutines, by test/script
//	```console check because="..."     parsed by the real CLI, not run, for this reason
//	```console tested=TestX            run as it stands by another test
//	```python file=agent.py            written into the page's folder for later commands
//	```json                            is JSON; toml likewise
//	```text                            shows no command
//
// A block that says none of it fails the tests. Commands begin with "$ ", and go on in
// lines that begin with "> ". What stands under a command is its output, stdout and stderr
// as they come; "..." stands for any text within a line, and alone for any lines. Without
// output the command has only to succeed. One whose output has a line "hint:" has to
// fail, unless it prints $?. Runs of blanks are alike, and that a command starts the
// daemon is not looked at.
//
// Commands within sentences, such as `aegis logs X`, are parsed by the CLI; X and words in capitals
// are operands like any other.
//
// The blocks of a page are run in their order, in one shell and one folder, which begins
// as a copy of the page's own folder for an example, and has a copy of examples/ for the
// other pages. HOME is the page's, and AEGIS_HOME the one in it. The ports 8080, 8081 and 8099 of pages
// stand for free ones.
package docs
