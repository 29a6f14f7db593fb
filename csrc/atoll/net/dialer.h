// The dialling side of handshakes: keeps trying until a link is up, or a lost connection of one has
// another in its place, or time is over. The reactor thread only; host names are resolved on threads
// of their own (LookupOwner).
//
// A call goes through a peer's addresses, in order: the next one is tried at once when one has
// failed, and after a short delay while one does not answer. An attempt opens its connections to one
// address, says HELLO on each and waits for all acknowledgements; the first attempt that has them
// wins. When all addresses have failed, the next round follows after a pause that doubles.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/limits.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/net/detour.h"
#include "atoll/net/fd.h"
#include "atoll/net/handshake.h"
#include "atoll/net/poller.h"
#include "atoll/net/socket.h"
#include "atoll/net/stream.h"
#include "atoll/net/tls_context.h"

namespace reef {

class DialerOwner {
 public:
  // Resolves on another thread, and calls Dialer::resolved() with the ticket on this one.
  virtual void look_up(std::uint64_t ticket, const std::string& host, std::uint16_t port) = 0;
  // A connection to a relay, on which its call has been answered: the caller speaks next.
  virtual void answered(Fd socket) = 0;
  // A link is up: `ack` is the acknowledgement of its connection 0, `route` the way that worked.
  virtual void dialled(const PeerId& peer, const Hello& ack, Streams streams,
                       const Route& route) = 0;
  virtual void unreachable(const PeerId& peer, const std::string& message) = 0;
  // Whether a certificate with this name may be the peer's. impostor(): one was shown that may not,
  // and was told nothing.
  [[nodiscard]] virtual bool may_be(const PeerId& peer, const std::string& holder) const = 0;
  virtual void impostor(const std::string& message) = 0;
  // Repairs. describe() fills the HELLO of an attempt; false: it is not wanted any more.
  virtual bool describe(const PeerId& peer, std::uint32_t slot, Hello& hello) = 0;
  virtual void redialled(const PeerId& peer, const Hello& ack, std::unique_ptr<Stream> stream) = 0;
  // The peer's process, or its end of the link, is gone. Must not call the dialer.
  virtual void irreparable(const PeerId& peer, std::uint32_t slot, const std::string& message) = 0;
  // An attempt is over that in_contact() may have counted. Must not call the dialer.
  virtual void contact_lost() = 0;

 protected:
  ~DialerOwner() = default;
};

class Dialer {
 public:
  struct Options {
    PeerId self;
    Secret secret{};
    Nanos dial_timeout = 10 * kSecond;
    Nanos handshake_timeout = limits::kHandshakeTimeout;
    const TlsContext* tls = nullptr;  // outlives the dialer; null: no TLS
    std::uint32_t hello_flags = 0;    // of every HELLO for a new link
  };
  Dialer(Poller& poller, const Options& options, DialerOwner& owner);
  ~Dialer();
  Dialer(const Dialer&) = delete;
  Dialer& operator=(const Dialer&) = delete;

  // Begins, or begins anew with other addresses, a link of so many connections; 0: as many as the
  // round trip of the first asks for (connections_from_round_trip), `most` at most. The time that it
  // may take counts from `began`.
  void dial(const PeerId& peer, const Endpoints& endpoints, std::uint32_t connections,
            std::uint32_t most, Nanos began, Nanos now,
            std::shared_ptr<const Detour> detour = nullptr);
  // Answers a relay's call with one connection to it, by routes that are known or else by endpoints.
  // Given up without a word after `handshake_timeout`, or when there are too many.
  void answer(const PeerId& asker, std::shared_ptr<const Detour> detour, std::vector<Route> routes,
              const Endpoints& endpoints, Nanos now);
  // Begins to fill a slot of a link that is up, by the route that it was dialled by or else by the
  // endpoints; goes on until it is cancelled, or irreparable.
  void redial(const PeerId& peer, std::uint32_t slot, const Nonce& nonce,
              std::vector<Route> routes, const Endpoints& endpoints, Nanos now);
  // Gives up without a word, on a link and on repairs. False when the peer's link is not dialled.
  bool cancel(const PeerId& peer);
  void cancel_repair(const PeerId& peer, std::uint32_t slot);
  // Whether a HELLO for a whole link is out, so that the peer may be about to accept it.
  [[nodiscard]] bool in_contact(const PeerId& peer) const;
  // The same for a slot of its link.
  [[nodiscard]] bool in_contact(const PeerId& peer, std::uint32_t slot) const;
  void resolved(std::uint64_t ticket, Result<std::vector<Address>> addresses, Nanos now);
  // Pauses and timeouts. Returns when to call again at the latest.
  Nanos tick(Nanos now);
  // Frees what has ended; not to be called from within a call of this class.
  void sweep();
  [[nodiscard]] bool idle() const { return calls_.empty(); }

 private:
  struct Line;
  struct Attempt;
  struct Call;
  using Key = std::pair<PeerId, std::int64_t>;  // slot, kLink, or below it an answer's number

  Call& begin(const Key& key, const Endpoints& endpoints,
              std::shared_ptr<const Detour> detour = nullptr);
  void begin_round(Call& call, Nanos now);
  void advance(Call& call, Nanos now);
  void end_round(Call& call, Nanos now);
  bool attempt(Call& call, const Route& route, Nanos now);
  bool open_line(Attempt& attempt, std::uint32_t index);
  void widen(Attempt& attempt, const Line& first);
  void progress(Line& line);
  void fail(Attempt& attempt, const std::string& why, int error, Nanos now);
  void supersede(const Attempt& latest);
  void hang_up(Attempt& attempt);
  void give_up(Call& call, Nanos now);
  [[nodiscard]] bool has_contact(const Key& key) const;
  void erase(std::map<Key, std::unique_ptr<Call>>::iterator at);
  bool secure(Line& line, std::string& why, int& error);
  void hand_over(Line& line);
  bool greet(Line& line, std::string& why);
  bool hear(Line& line, std::string& why);
  void succeed(Attempt& attempt);

  Poller& poller_;
  Options options_;
  DialerOwner& owner_;
  std::uint64_t last_ticket_ = 0;
  std::int64_t last_answer_ = 0;
  std::map<Key, std::unique_ptr<Call>> calls_;
  std::vector<std::unique_ptr<Line>> dead_;
};

}  // namespace reef
