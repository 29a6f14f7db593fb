// The listening side of handshakes: strangers are counted and shut out, the connections of a link
// are brought together. The reactor thread only.
//
// A HELLO that is in order but comes from a peer that is not (yet) welcome is held until it is, for
// as long as a handshake may take: a joiner may dial a member a moment before that member has been
// told of it. HELLO_ACK goes out on all connections of a link together, when the last has arrived;
// a dialer that has its acknowledgements therefore knows that the link is up here.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/limits.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/net/fd.h"
#include "atoll/net/handshake.h"
#include "atoll/net/poller.h"
#include "atoll/net/stream.h"
#include "atoll/net/tls_context.h"

namespace reef {

class AcceptorOwner {
 public:
  enum class Welcome : std::uint8_t { yes, later, known };  // known: this very link is up already
  virtual Welcome welcome(const PeerId& peer, const Nonce& nonce) = 0;
  // Whether a certificate with this name may be the peer's; of a peer that is not known (yet) any may.
  [[nodiscard]] virtual bool may_be(const PeerId& peer, const std::string& holder) const = 0;
  // Why a connection was refused, where an operator has something to mend.
  virtual void refused(const std::string& message) = 0;
  // `ack` is what connection 0 was answered.
  virtual void accepted(const PeerId& peer, const Hello& ack, Streams streams) = 0;

  // A connection that shall take the place of a lost one. yes: `ack` is complete, repaired() follows.
  // stale: another attempt was newer. gone: the link is over here.
  enum class Answer : std::uint8_t { yes, later, stale, gone };
  virtual Answer repair(const Hello& hello, Hello& ack) = 0;
  virtual void repaired(const Hello& hello, std::unique_ptr<Stream> stream) = 0;

  // No HELLO was said, but RELAY_ASK or RELAY_ANSWER: the socket as it is.
  virtual void relay(FrameType what, const Hello& hello, Fd socket) = 0;

 protected:
  ~AcceptorOwner() = default;
};

struct Rejections {  // monotone counters of connections
  std::uint64_t bad_hello = 0;
  std::uint64_t garbage = 0;
  std::uint64_t timeout = 0;
  std::uint64_t overload = 0;
  std::uint64_t tls = 0;  // no certificate or a foreign one, no TLS, or TLS where there is none
  std::uint64_t name = 0;  // the certificate is not that of the peer for which it speaks
  Rejections& operator+=(const Rejections& other);
};

class Acceptor final : public Ready {
 public:
  struct Options {
    PeerId self;
    Secret secret{};
    Nanos handshake_timeout = limits::kHandshakeTimeout;
    const TlsContext* tls = nullptr;  // outlives the acceptor; null: no TLS
    std::uint32_t hello_flags = 0;    // of every HELLO_ACK for a new link
  };
  static Result<std::unique_ptr<Acceptor>> create(Poller& poller, Fd listener,
                                                  const Options& options, AcceptorOwner& owner);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  void on_ready(std::uint32_t events) override;
  // A connection that a relay has made, as if it had come by itself.
  void take(Fd socket, Nanos now) { admit(std::move(socket), now); }
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
  bool secure(Pending& pending);
  bool sniff(Pending& pending);
  void relay(Pending& pending, FrameType what);
  void judge(Pending& pending);
  bool believe(Pending& pending);
  void assemble(Pending& latest);
  void repair(Pending& pending);
  void answer(Pending& pending, Hello ack);
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
