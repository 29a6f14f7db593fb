// The dialling side of handshakes: keeps trying to build a link until it is up or time is over. The
// reactor thread only; host names are resolved on threads of their own (LookupOwner).
//
// A try opens all k connections, says HELLO on each and waits for k acknowledgements. Whatever goes
// wrong ends the try; the next one follows after a pause that doubles.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/limits.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/net/fd.h"
#include "atoll/net/handshake.h"
#include "atoll/net/poller.h"
#include "atoll/net/socket.h"

namespace reef {

class DialerOwner {
 public:
  // Resolves on another thread, and calls Dialer::resolved() with the ticket on this one.
  virtual void look_up(std::uint64_t ticket, const std::string& host, std::uint16_t port) = 0;
  virtual void dialled(const PeerId& peer, const Nonce& nonce, std::vector<Fd> sockets) = 0;
  virtual void unreachable(const PeerId& peer, const std::string& message) = 0;

 protected:
  ~DialerOwner() = default;
};

class Dialer {
 public:
  struct Options {
    PeerId self;
    Secret secret{};
    std::uint32_t connections = 2;
    Nanos dial_timeout = 10 * kSecond;
    Nanos handshake_timeout = limits::kHandshakeTimeout;
  };
  Dialer(Poller& poller, const Options& options, DialerOwner& owner);
  ~Dialer();
  Dialer(const Dialer&) = delete;
  Dialer& operator=(const Dialer&) = delete;

  // Begins, or begins anew with another address.
  void dial(const PeerId& peer, const std::string& host, std::uint16_t port, Nanos now);
  // Gives up without a word. False when the peer is not being dialled.
  bool cancel(const PeerId& peer);
  [[nodiscard]] bool dialling(const PeerId& peer) const { return calls_.contains(peer); }
  void resolved(std::uint64_t ticket, Result<std::vector<Address>> addresses, Nanos now);
  // Pauses and timeouts. Returns when to call again at the latest.
  Nanos tick(Nanos now);
  // Frees what has ended; not to be called from within a call of this class.
  void sweep();
  [[nodiscard]] bool idle() const { return calls_.empty(); }

 private:
  struct Line;
  struct Call;
  void begin_try(Call& call, Nanos now);
  void progress(Line& line);
  void fail_try(Call& call, const std::string& why, Nanos now);
  void give_up(Call& call, Nanos now);
  void hang_up(Call& call);
  bool greet(Line& line, std::string& why);
  bool hear(Line& line, std::string& why);
  void connect_through(Call& call);

  Poller& poller_;
  Options options_;
  DialerOwner& owner_;
  std::uint64_t last_ticket_ = 0;
  std::map<PeerId, std::unique_ptr<Call>> calls_;
  std::vector<std::unique_ptr<Line>> dead_;
};

}  // namespace reef
