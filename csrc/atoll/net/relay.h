// The relay: brings together two peers that cannot reach each other but can both reach this one. It
// carries bytes from one connection to the other and back and understands none of them: the two ends
// do their handshake, and their TLS, through it. The reactor thread only.
//
//   asker  -- RELAY_ASK(target, ticket) -->  relay
//                                            relay  -- RELAY_CALL(asker, nonce), on its link -->  target
//                                            relay  <-- RELAY_ANSWER(asker, nonce) --  target, which dials
//   asker  <==============  bytes  =======>  relay  <==========  bytes  ==========>  target
//
// Only pairs that it was told of are carried (allow()). What is under way is bounded for each pair of
// connections (limits::kCarriedBytes each way): a slow end slows the other one down. When one
// connection is lost, the other is closed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/limits.h"
#include "atoll/base/time.h"
#include "atoll/net/detour.h"
#include "atoll/net/fd.h"
#include "atoll/net/poller.h"

namespace reef {

class RelayOwner {
 public:
  // Tells `target`, on the link with it, who calls. False: there is no link.
  virtual bool call(const PeerId& target, const PeerId& asker, const Nonce& nonce) = 0;

 protected:
  ~RelayOwner() = default;
};

struct RelayTally {
  std::uint64_t pairs = 0;        // that may be brought together
  std::uint64_t connections = 0;  // pairs of connections, now
  std::uint64_t total = 0;        // ever
  std::uint64_t bytes = 0;        // both ways
  std::uint64_t refused = 0;      // asked for or answered in vain
};

class Relay {
 public:
  struct Options {
    Nanos patience = limits::kHandshakeTimeout;  // for who is called
    // Of the sockets: see tune().
    Nanos silence = 5 * kSecond;
    Nanos keepalive = 15 * kSecond;
    std::string congestion;
  };
  Relay(Poller& poller, const Options& options, RelayOwner& owner);
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  void allow(const PeerId& one, const PeerId& other, const Ticket& ticket);
  // No more connections between them; those that there are go on.
  void forbid(const PeerId& one, const PeerId& other);
  // Ends all that this peer has to do with.
  void cut_off(const PeerId& peer);

  void close();  // ends all

  // A connection on which RELAY_ASK, or RELAY_ANSWER, was said.
  void ask(const Hello& hello, Fd socket);
  void answer(const Hello& hello, Fd socket);

  // Patience. Returns when to call again at the latest.
  Nanos tick(Nanos now);
  // Frees what has ended; not to be called from within a call of this class.
  void sweep();
  [[nodiscard]] RelayTally tally() const;

 private:
  struct Waiting;
  struct End;
  struct Carried;
  using Pair = std::pair<PeerId, PeerId>;  // the lower id first
  static Pair pair_of(const PeerId& one, const PeerId& other);
  void carry(Waiting& waiting, Fd answered);
  void move(Carried& carried);
  bool pass(End& from, End& to);
  void end(Carried& carried);
  void hang_up(Waiting& waiting);

  Poller& poller_;
  Options options_;
  RelayOwner& owner_;
  std::map<Pair, Ticket> allowed_;
  std::vector<std::unique_ptr<Waiting>> waiting_;
  std::vector<std::unique_ptr<Carried>> carried_;
  std::vector<std::unique_ptr<Waiting>> hung_up_;
  std::vector<std::unique_ptr<Carried>> ended_;
  RelayTally tally_;
};

}  // namespace reef
