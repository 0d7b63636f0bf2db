class Aegisvm < Formula
  desc "MicroVMs for AI agents: run, sleep, wake, fork"
  homepage "https://github.com/xfeldman/aegisvm"
  version "@VERSION@"
  license "Apache-2.0"

  on_macos do
    on_arm do
      url "@URL@/aegisvm_@VERSION@_darwin_arm64.tar.gz"
      sha256 "@SHA256 aegisvm_@VERSION@_darwin_arm64.tar.gz@"
    end
    on_intel do
      url "@URL@/aegisvm_@VERSION@_darwin_amd64.tar.gz"
      sha256 "@SHA256 aegisvm_@VERSION@_darwin_amd64.tar.gz@"
    end
  end
  on_linux do
    on_arm do
      url "@URL@/aegisvm_@VERSION@_linux_arm64.tar.gz"
      sha256 "@SHA256 aegisvm_@VERSION@_linux_arm64.tar.gz@"
    end
    on_intel do
      url "@URL@/aegisvm_@VERSION@_linux_amd64.tar.gz"
      sha256 "@SHA256 aegisvm_@VERSION@_linux_amd64.tar.gz@"
    end
  end

  depends_on "e2fsprogs"
  depends_on "qemu"

  def install
    prefix.install "bin", "lib", "share"
  end

  # macOS runs VMs only for programs that are signed with the right to do so; the bottle's own
  # signature goes with the paths that Homebrew writes into programs.
  def post_install
    return unless OS.mac?

    worker = lib/"aegisvm/aegis-vmm-worker"
    return unless worker.exist?

    system "codesign", "--force", "--sign", "-",
           "--entitlements", share/"aegisvm/launchd/entitlements.plist", worker
  end

  def caveats
    <<~EOS
      Set up once, then say hello:
        aegis setup
        aegis run -- echo hello
      The agent for VMs:
        brew install xfeldman/tap/aegisvm-agent-kit
    EOS
  end

  service do
    run [opt_bin/"aegisd"]
    keep_alive successful_exit: false
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/aegis version")
  end
end
