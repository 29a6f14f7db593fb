// The listening side of handshakes between peers of one host. The reactor thread only.
//
// As the acceptor does for the network: strangers are bounded, counted and shut out, and a HELLO
// that is in order but comes from a peer that is not (yet) welcome is held until it is, for as long
// as a handshake may take. Processes of other users are not listened to at all.
#pragma once

#include <memory>
#include <vector>

#include "atoll/net/acceptor.h"
#include "atoll/net/local_channel.h"
#include "atoll/net/poller.h"

namespace reef {

class LocalAcceptorOwner {
 public:
  virtual AcceptorOwner::Welcome welcome(const PeerId& peer, const Nonce& nonce) = 0;
  virtual void accepted(const PeerId& peer, const Nonce& nonce, LocalChannel channel) = 0;
  // The peer's memory cannot be used here: it will come over the network.
  virtual void not_shared(const PeerId& peer, const std::string& why) = 0;

 protected:
  ~LocalAcceptorOwner() = default;
};

class LocalAcceptor final : public Ready {
 public:
  static Result<std::unique_ptr<LocalAcceptor>> create(Poller& poller, Fd listener,
                                                       const Acceptor::Options& options,
                                                       LocalAcceptorOwner& owner);
  ~LocalAcceptor();
  LocalAcceptor(const LocalAcceptor&) = delete;
  LocalAcceptor& operator=(const LocalAcceptor&) = delete;

  void on_ready(std::uint32_t events) override;
  // Asks again who is welcome: call it when that may have changed.
  void reconsider();
  // Timeouts. Returns when to call again at the latest.
  Nanos tick(Nanos now);
  // Frees what has ended; not to be called from within a call of this class.
  void sweep();
  [[nodiscard]] const Rejections& rejections() const { return rejections_; }

 private:
  struct Pending;
  LocalAcceptor(Poller& poller, Fd listener, const Acceptor::Options& options,
                LocalAcceptorOwner& owner);
  void admit(Fd socket, Nanos now);
  void read_from(Pending& pending);
  void assemble(Pending& pending);
  void refuse(Pending& pending, std::uint64_t& counter);
  void bury(const Pending& pending);

  Poller& poller_;
  Fd listener_;
  Acceptor::Options options_;
  LocalAcceptorOwner& owner_;
  Registration registration_;
  Rejections rejections_;
  Nanos paused_until_ = kNever;  // out of file descriptors: kNever when not paused
  std::vector<std::unique_ptr<Pending>> pending_;
  std::vector<std::unique_ptr<Pending>> dead_;
};

}  // namespace reef
