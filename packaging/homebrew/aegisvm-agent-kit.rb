class AegisvmAgentKit < Formula
  desc "AI agent for AegisVM: a language model with a computer of its own"
  homepage "https://github.com/xfeldman/aegisvm"
  version "@VERSION@"
  license "Apache-2.0"

  on_macos do
    on_arm do
      url "@URL@/aegisvm-agent-kit_@VERSION@_darwin_arm64.tar.gz"
      sha256 "@SHA256 aegisvm-agent-kit_@VERSION@_darwin_arm64.tar.gz@"
    end
    on_intel do
      url "@URL@/aegisvm-agent-kit_@VERSION@_darwin_amd64.tar.gz"
      sha256 "@SHA256 aegisvm-agent-kit_@VERSION@_darwin_amd64.tar.gz@"
    end
  end
  on_linux do
    on_arm do
      url "@URL@/aegisvm-agent-kit_@VERSION@_linux_arm64.tar.gz"
      sha256 "@SHA256 aegisvm-agent-kit_@VERSION@_linux_arm64.tar.gz@"
    end
    on_intel do
      url "@URL@/aegisvm-agent-kit_@VERSION@_linux_amd64.tar.gz"
      sha256 "@SHA256 aegisvm-agent-kit_@VERSION@_linux_amd64.tar.gz@"
    end
  end

  depends_on "xfeldman/tap/aegisvm"

  def install
    prefix.install "lib", "share"
  end

  test do
    assert_path_exists share/"aegisvm/kits/agent.json"
    assert_match "agent", shell_output("#{Formula["aegisvm"].opt_bin}/aegis kit list")
  end
end
