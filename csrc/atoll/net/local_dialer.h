// The dialling side of handshakes between peers of one host. The reactor thread only.
//
// A call tries the peer's Unix socket once. It ends with dialled(), or with not_local(), after
// which the owner dials over the network; at once when nobody listens here, else within a part of
// the time that a dial may take. Nothing secret is said before the kernel has named the user at the
// other end.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/net/handshake.h"
#include "atoll/net/local_channel.h"
#include "atoll/net/poller.h"
#include "atoll/net/socket.h"

namespace reef {

struct DialTarget {
  PeerId peer;
  Endpoints endpoints;
  Nanos began = 0;
};

class LocalDialerOwner {
 public:
  virtual void dialled(const PeerId& peer, const Nonce& nonce, LocalChannel channel) = 0;
  // `why`: one sentence; empty when nobody is there, which is nobody's fault.
  virtual void not_local(const DialTarget& target, const std::string& why) = 0;

 protected:
  ~LocalDialerOwner() = default;
};

class LocalDialer {
 public:
  struct Options {
    PeerId self;
    Secret secret{};
    Nanos patience = 0;  // how long an answer may take
  };
  LocalDialer(Poller& poller, const Options& options, LocalDialerOwner& owner);
  ~LocalDialer();
  LocalDialer(const LocalDialer&) = delete;
  LocalDialer& operator=(const LocalDialer&) = delete;

  // May call not_local() before it returns.
  void dial(const DialTarget& target, Nanos now);
  // Gives up without a word. False when the peer is not being dialled.
  bool cancel(const PeerId& peer);
  [[nodiscard]] bool dialling(const PeerId& peer) const { return calls_.contains(peer); }
  // Timeouts. Returns when to call again at the latest.
  Nanos tick(Nanos now);
  // Frees what has ended; not to be called from within a call of this class.
  void sweep();
  // Calls that found somebody and yet came to nothing.
  [[nodiscard]] std::uint64_t failures() const { return failures_; }

 private:
  struct Call;
  Status greet(Call& call);
  void hear(Call& call);
  void fail(const PeerId& peer, const std::string& why);

  Poller& poller_;
  Options options_;
  LocalDialerOwner& owner_;
  std::uint64_t failures_ = 0;
  std::map<PeerId, std::unique_ptr<Call>> calls_;
  std::vector<std::unique_ptr<Call>> dead_;
};

}  // namespace reef
