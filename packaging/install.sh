#!/bin/sh
# Installs AegisVM, https://github.com/xfeldman/aegisvm, brings it up to date, and removes it.
#
#   curl -fsSL https://github.com/xfeldman/aegisvm/releases/latest/download/install.sh | sh
#   curl -fsSL https://github.com/xfeldman/aegisvm/releases/latest/download/install.sh | sh -s -- --kit
#
# Nothing is put in place before the signature of the release's checksums, and the digest of
# every file, have been found good. `install.sh --help` tells the options.
#
# AEGIS_INSTALL_URL   where releases are, if not on GitHub; same paths below it
# AEGIS_INSTALL_KEY   file with another public key to believe
set -eu

releases=${AEGIS_INSTALL_URL:-https://github.com/xfeldman/aegisvm/releases}
os_release=${AEGIS_INSTALL_OS_RELEASE:-/etc/os-release}

usage() {
	cat <<'END'
usage: install.sh [--kit] [--version VERSION] [--prefix DIR | --system]
       install.sh --uninstall [--prefix DIR | --system]

  --kit              install the Agent Kit, too; one that is there is kept up to date anyway
  --version VERSION  a certain release, such as 1.2.3 (default: the newest)
  --prefix DIR       install below DIR (default: ~/.local)
  --system           install the packages of this Debian, Ubuntu, Fedora, RHEL or SUSE, with
                     sudo (default for root, where there are packages; else /usr/local)
  --uninstall        remove AegisVM and the Agent Kit; ~/.aegis stays
END
}

# What releases are signed with. Empty in the source tree: `make dist` puts the key here.
release_key() {
	cat <<'END'
@KEY@
END
}

say() { printf '%s\n' "$*"; }

die() {
	printf 'install.sh: %s\n' "$1" >&2
	if [ $# -gt 1 ]; then printf '  hint: %s\n' "$2" >&2; fi
	exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

fetch() { # URL FILE
	if has curl; then
		curl -fsSL --retry 3 -o "$2" "$1"
	elif has wget; then
		wget -q -O "$2" "$1"
	else
		die "neither curl nor wget is here" "install one of them"
	fi || die "cannot fetch $1" "check the network, and that there is such a release"
}

digest() { # FILE
	if has sha256sum; then
		sha256sum <"$1"
	elif has shasum; then
		shasum -a 256 <"$1"
	else
		openssl dgst -sha256 -r <"$1"
	fi | cut -d ' ' -f 1
}

# find_platform sets os and arch as releases name them.
find_platform() {
	os=$(uname -s) arch=$(uname -m)
	case $os in
	Linux) os=linux ;;
	Darwin) os=darwin ;;
	*) die "AegisVM does not run on $os" "it runs on Linux and macOS" ;;
	esac
	case $arch in
	x86_64 | amd64) arch=amd64 ;;
	aarch64 | arm64) arch=arm64 ;;
	*) die "AegisVM does not run on $arch" "it runs on amd64 and arm64" ;;
	esac
	# A shell that Rosetta translates says that it is on another machine.
	if [ "$os" = darwin ] && [ "$(sysctl -n sysctl.proc_translated 2>/dev/null)" = 1 ]; then
		arch=arm64
	fi
}

# find_packages sets packages to the kind that this distribution has, or to nothing.
find_packages() {
	packages=
	if [ "$os" = linux ] && [ -r "$os_release" ]; then
		# shellcheck disable=SC1090 # the file is the system's
		case " $(. "$os_release" && printf '%s %s' "${ID:-}" "${ID_LIKE:-}") " in
		*" debian "* | *" ubuntu "*) packages=deb ;;
		*" fedora "* | *" rhel "* | *" centos "* | *suse*) packages=rpm ;;
		esac
	fi
}

# as_root runs a command of the system's package manager.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif has sudo; then
		sudo "$@"
	else
		die "--system needs root, and there is no sudo" "run this as root, or without --system"
	fi
}

# fetch_checksums gets the list of the release's files, and believes it only if it is signed.
fetch_checksums() {
	if [ -n "$version" ]; then
		from=$releases/download/v${version#v}
	else
		from=$releases/latest/download
	fi
	if [ -n "${AEGIS_INSTALL_KEY:-}" ]; then
		cp "$AEGIS_INSTALL_KEY" "$tmp/key"
	else
		release_key >"$tmp/key"
	fi
	has openssl || die "openssl is not here, which checks signatures" "install it, then run this again"
	openssl pkey -pubin -in "$tmp/key" -noout 2>/dev/null ||
		die "there is no key to check the release with" "get install.sh from the release's page, or name a key in AEGIS_INSTALL_KEY"
	fetch "$from/checksums.txt" "$tmp/checksums.txt"
	fetch "$from/checksums.txt.sig" "$tmp/checksums.txt.sig"
	openssl dgst -sha256 -verify "$tmp/key" -signature "$tmp/checksums.txt.sig" "$tmp/checksums.txt" >/dev/null 2>&1 ||
		die "the signature of $from/checksums.txt is not good; nothing was installed" "somebody may have changed it: tell the project"
}

# fetch_package gets a package of this platform and sets file to where it is, and found to its
# version. A name holds no version that we would know before the list.
fetch_package() { # NAME EXTENSION
	name=$(awk -v start="$1_" -v end="_${os}_$arch.$2" \
		'index($2, start) == 1 && substr($2, length($2) - length(end) + 1) == end { print $2 }' "$tmp/checksums.txt")
	case $name in
	'' | */* | *"
"*) die "the release has no $1 for $os/$arch" "see $releases" ;;
	esac
	want=$(awk -v name="$name" '$2 == name { print $1 }' "$tmp/checksums.txt")
	file=$tmp/$name
	fetch "$from/$name" "$file"
	if [ "$(digest "$file")" != "$want" ]; then
		die "the digest of $name is not what the release says; nothing was installed" "try again; if it stays so, tell the project"
	fi
	found=${name#"$1_"}
	found=${found%"_${os}_$arch.$2"}
}

# Below a prefix, a list for each package says what is there of it: files, and the folders that
# were made for them.
list_of() { printf '%s/lib/aegisvm/installed-%s' "$prefix" "$1"; }

# make_folder makes a folder of the prefix and those above it, and lists what it made.
make_folder() { # FOLDER LIST
	if [ "$1" = . ] || [ -d "$prefix/$1" ]; then return; fi
	make_folder "$(dirname "$1")" "$2"
	mkdir "$prefix/$1"
	printf 'd %s\n' "$1" >>"$2"
}

# place installs an archive below the prefix. A file is replaced in one step, so that programs
# which run are not disturbed; what only the old version had goes.
place() { # NAME ARCHIVE
	rm -rf "$tmp/tree"
	mkdir "$tmp/tree"
	tar -xzf "$2" -C "$tmp/tree" --strip-components=1
	adapt "$tmp/tree"
	list=$(list_of "$1")
	mkdir -p "$prefix"
	: >"$tmp/list"
	(cd "$tmp/tree" && find . -type f | sed 's|^\./||' | LC_ALL=C sort) >"$tmp/files"
	make_folder lib/aegisvm "$tmp/list"
	if [ -e "$list" ]; then grep '^d ' "$list" >>"$tmp/list" || true; fi
	while IFS= read -r path; do
		make_folder "$(dirname "$path")" "$tmp/list"
		cp -p "$tmp/tree/$path" "$prefix/$path.new"
		mv -f "$prefix/$path.new" "$prefix/$path"
		printf 'f %s\n' "$path" >>"$tmp/list"
	done <"$tmp/files"
	if [ -e "$list" ]; then
		sed -n 's/^f //p' "$list" | while IFS= read -r path; do
			grep -qxF "f $path" "$tmp/list" || rm -f "$prefix/$path"
		done
	fi
	cp "$tmp/list" "$list.new"
	mv -f "$list.new" "$list"
}

# adapt makes a package's files fit the prefix and the system.
adapt() { # TREE
	for unit in "$1/share/systemd/user/aegisd.service" "$1/share/aegisvm/launchd/dev.aegisvm.aegisd.plist"; do
		[ -e "$unit" ] || continue
		sed "s|/usr/bin/|$prefix/bin/|g" "$unit" >"$tmp/unit"
		cat "$tmp/unit" >"$unit"
	done
	if [ "$os" = darwin ]; then
		rm -rf "$1/share/systemd"
		if [ -e "$1/lib/aegisvm/aegis-vmm-worker" ]; then # macOS wants a right to run VMs
			codesign --force --sign - --entitlements "$1/share/aegisvm/launchd/entitlements.plist" "$1/lib/aegisvm/aegis-vmm-worker"
		fi
	else
		rm -rf "$1/share/aegisvm/launchd"
	fi
}

# remove takes a package away from the prefix.
remove() { # NAME
	list=$(list_of "$1")
	[ -e "$list" ] || return 0
	cp "$list" "$tmp/list"
	rm -f "$list"
	sed -n 's/^f //p' "$tmp/list" | while IFS= read -r path; do rm -f "$prefix/$path"; done
	# The deepest first; what others have put something into stays.
	sed -n 's/^d //p' "$tmp/list" | LC_ALL=C sort -r | while IFS= read -r path; do
		rmdir "$prefix/$path" 2>/dev/null || true
	done
	say "removed $1 from $prefix"
}

install_below_prefix() {
	kit=$with_kit
	if [ -e "$(list_of aegisvm-agent-kit)" ]; then kit=1; fi
	fetch_package aegisvm tar.gz
	core=$file
	if [ "$kit" = 1 ]; then fetch_package aegisvm-agent-kit tar.gz; fi
	before=
	if [ -x "$prefix/bin/aegis" ]; then before=$("$prefix/bin/aegis" --version 2>/dev/null) || before=; fi
	place aegisvm "$core"
	say "installed AegisVM $found below $prefix${before:+; it was ${before#aegis }}"
	if [ "$kit" = 1 ]; then
		place aegisvm-agent-kit "$file"
		say "installed the Agent Kit $found"
	fi
	case :$PATH: in
	*":$prefix/bin:"*) ;;
	*) say "put $prefix/bin on your PATH" ;;
	esac
}

install_packages() {
	[ -n "$packages" ] || die "there are no packages for this system" "leave out --system"
	kit=$with_kit
	if installed_package aegisvm-agent-kit; then kit=1; fi
	fetch_package aegisvm "$packages"
	set -- "$file"
	if [ "$kit" = 1 ]; then
		fetch_package aegisvm-agent-kit "$packages"
		set -- "$@" "$file"
	fi
	chmod 755 "$tmp" # apt reads packages as a user of its own
	if [ "$packages" = deb ]; then
		# What set-up needs comes along; what QEMU would like to have, such as windows, does not.
		set -- env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" mmdebstrap uidmap
		as_root "$@" || { as_root apt-get update && as_root "$@"; }
	elif has dnf; then
		as_root dnf install -y "$@"
	elif has zypper; then
		as_root zypper --non-interactive install --allow-unsigned-rpm "$@"
	else
		as_root yum install -y "$@"
	fi || die "the packages were not installed" "see what the package manager says"
	say "installed AegisVM $found"
}

installed_package() { # NAME
	case $packages in
	deb) dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q ' installed$' ;;
	rpm) rpm -q "$1" >/dev/null 2>&1 ;;
	*) false ;;
	esac
}

uninstall_packages() {
	set --
	for name in aegisvm-agent-kit aegisvm; do
		if installed_package "$name"; then set -- "$@" "$name"; fi
	done
	if [ $# -eq 0 ]; then
		say "AegisVM is not installed as a package"
	elif [ "$packages" = deb ]; then
		as_root dpkg -r "$@"
	else
		as_root rpm -e "$@"
	fi
}

uninstall_below_prefix() {
	[ -e "$(list_of aegisvm)" ] || [ -e "$(list_of aegisvm-agent-kit)" ] || die "AegisVM is not installed below $prefix" "name the right --prefix, or --system"
	if [ -x "$prefix/bin/aegis" ]; then
		"$prefix/bin/aegis" down || die "the daemon could not be stopped; nothing was removed" "run: $prefix/bin/aegis down --stop"
	fi
	remove aegisvm-agent-kit
	remove aegisvm
}

main() {
	action=install with_kit=0 version='' prefix='' system=''
	while [ $# -gt 0 ]; do
		case $1 in
		--kit) with_kit=1 ;;
		--version | --prefix)
			[ $# -gt 1 ] || die "$1 needs a value" "install.sh --help"
			if [ "$1" = --version ]; then version=$2; else prefix=$2; fi
			shift
			;;
		--system) system=1 ;;
		--uninstall) action=uninstall ;;
		-h | --help)
			usage
			exit 0
			;;
		*) die "unknown argument $1" "install.sh --help" ;;
		esac
		shift
	done
	[ -z "$prefix" ] || [ -z "$system" ] || die "--prefix and --system exclude each other"
	case $prefix in
	'' | /*) ;;
	*) prefix=$PWD/$prefix ;;
	esac

	find_platform
	find_packages
	if [ -z "$prefix$system" ]; then
		if [ "$(id -u)" -ne 0 ]; then
			prefix=$HOME/.local
		elif [ -n "$packages" ]; then
			system=1
		else
			prefix=/usr/local
		fi
	fi
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 130' INT TERM HUP

	if [ "$action" = uninstall ]; then
		if [ -n "$system" ]; then uninstall_packages; else uninstall_below_prefix; fi
		say "what it kept is in ~/.aegis; remove that, too, if you do not want it any more"
		return
	fi
	fetch_checksums
	if [ -n "$system" ]; then install_packages; else install_below_prefix; fi
	say "next: aegis setup, then: aegis run -- echo hello"
	say "a daemon that ran goes on as the old version until: aegis down"
}

# Only a script that has arrived whole gets to here.
main "$@"
