// The engine: a peer's whole data plane behind one thread-safe face.
//
// Threads: every method may be called from any thread; one reactor thread, owned by the engine, runs
//   the sockets and the Core. Events and completions are delivered through queues, never callbacks.
// Ownership: buffers of an op or a fetch belong to the engine from the call until its completion,
//   which happens exactly once. Published state is held by shared_ptr until no transfer reads it.
// Failure: construction fails with a Result (port in use, bad address). Afterwards: events and codes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/limits.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/collective/core.h"
#include "atoll/collective/view.h"
#include "atoll/net/detour.h"
#include "atoll/net/link_end.h"
#include "atoll/net/relay.h"
#include "atoll/net/socket.h"
#include "atoll/net/tls_context.h"
#include "atoll/net/transport.h"

namespace reef {

struct EngineOptions {
  PeerId self;
  std::string bind_host = "127.0.0.1";
  std::uint16_t bind_port = 0;  // 0: any
  std::array<std::uint8_t, 32> secret{};
  // Per link that this side dials. 0: as the present view's figures say (connections_between), or, to
  // peers that have none, as the round trip says; of all links together about kConnectionsOfAll.
  std::uint32_t connections = limits::kUsualConnections;
  Nanos heartbeat = 500 * kMillisecond;     // on a connection that has sent nothing for so long
  Nanos silence = 5 * kSecond;              // a link that has received nothing for so long is lost
  // All connections of a link are lost, and it is the peer that can dial: it has so long. Otherwise
  // a lost connection has `silence` to be replaced, unless the peer is seen to be gone before.
  Nanos repair_grace = kSecond;
  Nanos dial_timeout = 10 * kSecond;        // keeps trying to reach a peer for so long
  Nanos handshake_timeout = limits::kHandshakeTimeout;
  // A connection on which nothing moves is probed by the kernel (TCP keep-alive) after so long, so that
  // middleboxes keep it; whole seconds, 0: not at all. What is sent and not acknowledged for `silence`
  // ends a connection (TCP_USER_TIMEOUT).
  Nanos keepalive = 15 * kSecond;
  std::string congestion;  // of links' sockets: choose_congestion() in net/path.h
  bool checksums = false;  // CRC-32C on frames over sockets; either side of a link may ask for it
  TlsOptions tls;  // PEM text; all empty: plain TCP
  // Links to peers on this host go through shared memory when they can, else over the network.
  bool shared_memory = true;
  CoreOptions core;
};

// What a peer's certificate may be called: URIs.
using Names = std::vector<std::string>;

// --- events ------------------------------------------------------------------------------------
struct LinkUp {
  PeerId peer;
};
struct LinkDown {
  PeerId peer;
  LinkEnd reason = LinkEnd::reset;
  std::string message;  // one sentence with errno in words
};
struct OpEnded {  // a submitted op or fetch is over and its buffers are free
  OpId op = 0;
};
// A stranger, or a peer in another's name, was refused and an operator can mend it (TLS). At most one
// in limits::kRefusedEvery.
struct Refused {
  std::string message;  // one sentence
};
// A peer of this host is reached over the network, because shared memory with it came to nothing. At
// most one in limits::kRefusedEvery.
struct NotLocal {
  PeerId peer;
  std::string message;  // one sentence
};
using Event =
    std::variant<LinkUp, LinkDown, Refused, NotLocal, Fenced, Installed, Offered, OpEnded>;

struct Outcome {
  Code code = Code::ok;
  std::string message;
  Epoch epoch = 0;
  Sequence sequence = 0;
  std::uint64_t revision = 0;  // state fetch: the revision that was served (or that the donor holds)
  Nanos elapsed = 0;           // from submit to the end
  double bytes_per_s = 0;      // probe: from here to the peer
  Nanos round_trip = 0;        // probe
  Summary summary{};           // of an op that committed
};

struct LinkStats {
  PeerId peer;
  bool up = false;
  std::optional<PeerId> relay;        // through which the link that is up goes
  Transport transport = Transport::none;  // of the link that is up
  std::uint32_t connections = 0;     // that live now
  double expected_bytes_per_s = 0;   // its part of the measured lines; 0: not paced
  double delivered_bytes_per_s = 0;  // what arrived of late while it was busy; 0: not seen
  double pace_bytes_per_s = 0;       // so fast it sends at most; 0: as fast as may be
  std::uint64_t repairs = 0;         // connections that took the place of lost ones
  std::uint64_t damaged_frames = 0;  // with a wrong checksum: their connections were replaced
  std::uint64_t sent_bytes = 0;      // headers and payloads, at the socket
  std::uint64_t received_bytes = 0;
  Nanos sending = 0;    // time with something to send
  Nanos receiving = 0;  // time inside frames being received
  Nanos round_trip = 0;  // as the kernel smooths it, of the best connection; 0: down, or no TCP
  std::uint64_t retransmitted = 0;  // TCP segments
};
struct EngineStats {
  std::vector<LinkStats> links;  // also of peers that are gone, until forgotten by drop()
  Core::Tally core;
  std::uint64_t rejected_bad_hello = 0;     // connections of strangers, by what was wrong
  std::uint64_t rejected_garbage = 0;
  std::uint64_t rejected_timeout = 0;
  std::uint64_t rejected_overload = 0;
  std::uint64_t rejected_tls = 0;
  std::uint64_t rejected_name = 0;          // of either side: a certificate of another than the peer
  std::uint64_t protocol_errors = 0;        // links ended because a known peer broke the format
  std::uint64_t donated_bytes = 0;
  RelayTally relay;                         // what this engine carries for others
  // Peers that answered on this host and were yet linked with over the network.
  std::uint64_t shared_memory_failures = 0;
};

class Engine {
 public:
  static Result<std::unique_ptr<Engine>> create(const EngineOptions& options);
  ~Engine();  // close(), then joins the reactor

  [[nodiscard]] std::uint16_t port() const;

  // Membership (called by the control thread).
  // Accepts a link from this peer (unknown peers are refused). Endpoints, if known, let this side dial
  // when the link has lost all its connections. With TLS its certificate must carry one of `names`, as
  // its one URI; none: any certificate of the authorities will do. New names replace those before.
  void expect(const PeerId& peer, const Endpoints& endpoints = {}, const Names& names = {});
  // Reaches out for the peer; a link that it dials itself is as good. Tried in order, the first that
  // works wins; at most limits::kMaxRoutes of their addresses are used. LinkDown(unreachable) when
  // none has worked within dial_timeout.
  void dial(const PeerId& peer, const Endpoints& endpoints, const Names& names = {});
  void dial(const PeerId& peer, const std::string& host, std::uint16_t port) {
    dial(peer, Endpoints{{host, port}});
  }
  // Reaches out for the peer through another one, which must have been told carry() with the same
  // ticket; endpoints are those of that relay. The peer must expect() this one and be linked with the
  // relay. TLS is with the peer; who relays sees what a network sees.
  void dial(const PeerId& peer, const Endpoints& endpoints, const PeerId& relay,
            const Ticket& ticket, const Names& names = {});
  // Brings the two together when one of them asks for the other, until uncarry() or drop() of one.
  void carry(const PeerId& one, const PeerId& other, const Ticket& ticket);
  void uncarry(const PeerId& one, const PeerId& other);  // what goes on, goes on
  void drop(const PeerId& peer);  // ends the link (BYE) and forgets the peer
  void fence(std::uint64_t attempt, Change kind);
  void install(const View& view, const Starts& starts, Change kind);

  // Operations. Returns the op's id; its outcome comes through wait()/poll(). With `in` and `out` the
  // same memory the op is done in place: the input is set aside in a copy, and is back in the buffer
  // when the op fails. (Unless it may be overwritten: OpRequest::overwrite.)
  Result<OpId> submit(OpRequest request);  // request.id is assigned here
  // The OpEnded of a quiet op is to ring the event descriptor, after all.
  void watch(OpId op);
  void abort(OpId op);
  // Offered events tell of sends on this channel that come before their recv.
  void listen(Channel channel);
  // nullopt: not over within the timeout. An outcome is forgotten once taken with release().
  std::optional<Outcome> wait(OpId op, Nanos timeout);
  void release(OpId op);

  // Shared state. Buffers are named by index; what they mean is the caller's business.
  // Replaces what was published before; `keep_alive` is dropped when nothing reads the old ones.
  struct Published {
    std::uint64_t revision = 0;
    std::vector<std::span<const std::byte>> buffers;
    std::shared_ptr<void> keep_alive;
  };
  void publish(Published state);
  void unpublish();
  // Asks `donor` for part of one buffer. revision UINT64_MAX: whatever it holds (only for buffer 0).
  // out is filled from its beginning. A length beyond the buffer's end is an error (wrong_revision
  // when the revision differs, invalid otherwise). The served length is out.size(), except that for
  // buffer 0 a shorter buffer is served whole and its length is Outcome::sequence.
  Result<OpId> fetch(const PeerId& donor, std::uint64_t revision, std::uint32_t buffer,
                     std::uint64_t offset, std::span<std::byte> out, Nanos timeout);

  // Measures the link to `peer`: its round trip, and the rate from here to there, with a burst of
  // filler that ops' data and shared state overtake. One probe of a link at a time (invalid); the
  // other side need not know. Ends with peer_lost without a link, with deadline after `timeout`.
  struct ProbeOptions {
    Nanos duration = 100 * kMillisecond;               // of the burst, at most 500 ms
    std::uint64_t max_bytes = limits::kMaxProbeBytes;  // of filler, at most 64 MiB
    Nanos timeout = 5 * kSecond;
  };
  Result<OpId> probe(const PeerId& peer, const ProbeOptions& options);

  // Events: a file descriptor that is readable while there are some.
  [[nodiscard]] int event_fd() const;
  std::vector<Event> take_events();

  [[nodiscard]] EngineStats stats() const;
  void close();

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace reef
