// The listening side of handshakes: strangers are counted and shut out, the connections of a link
// are brought together. The reactor thread only.
//
// A HELLO that is in order but comes from a peer that is not (yet) welcome is held until it is, for
// as long as a handshake may take: a joiner may dial a member a moment before that member has been
// told of it. HELLO_ACK goes out on all connections of a link together, when the last has arrived;
// a dialer that has its acknowledgements therefore knows that the link is up here.
#pragma once

#include <memory>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/limits.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/net/fd.h"
#include "atoll/net/handshake.h"
#include "atoll/net/poller.h"

namespace reef {

class AcceptorOwner {
 public:
  enum class Welcome : std::uint8_t { yes, later, known };  // known: this very link is up already
  virtual Welcome welcome(const PeerId& peer, const Nonce& nonce) = 0;
  virtual void accepted(const PeerId& peer, const Nonce& nonce, std::vector<Fd> sockets) = 0;

 protected:
  ~AcceptorOwner() = default;
};

struct Rejections {  // monotone counters of connections
  std::uint64_t bad_hello = 0;
  std::uint64_t garbage = 0;
  std::uint64_t timeout = 0;
  std::uint64_t overload = 0;
};

class Acceptor final : public Ready {
 public:
  struct Options {
    PeerId self;
    Secret secret{};
    Nanos handshake_timeout = limits::kHandshakeTimeout;
  };
  static Result<std::unique_ptr<Acceptor>> create(Poller& poller, Fd listener,
                                                  const Options& options, AcceptorOwner& owner);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  void on_ready(std::uint32_t events) override;
  // Asks again who is welcome: call it when that may have changed.
  void reconsider();
  // Timeouts. Returns when to call again at the latest.
  Nanos tick(Nanos now);
  // Frees what has ended; not to be called from within a call of this class.
  void sweep();
  [[nodiscard]] const Rejections& rejections() const { return rejections_; }
  [[nodiscard]] bool idle() const { return pending_.empty(); }

 private:
  struct Pending;
  Acceptor(Poller& poller, Fd listener, const Options& options, AcceptorOwner& owner);
  void admit(Fd socket, Nanos now);
  void read_from(Pending& pending);
  void judge(Pending& pending);
  void assemble(const Pending& latest);
  void refuse(Pending& pending, std::uint64_t& counter);
  void bury(const Pending& pending);
  bool fits(const Pending& latest);

  Poller& poller_;
  Fd listener_;
  Options options_;
  AcceptorOwner& owner_;
  Registration registration_;
  Rejections rejections_;
  Nanos paused_until_ = kNever;  // out of file descriptors: kNever when not paused
  std::vector<std::unique_ptr<Pending>> pending_;
  std::vector<std::unique_ptr<Pending>> dead_;
};

}  // namespace reef
