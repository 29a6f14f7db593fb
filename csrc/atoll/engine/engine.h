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
#include "atoll/net/link_end.h"

namespace reef {

struct EngineOptions {
  PeerId self;
  std::string bind_host = "127.0.0.1";
  std::uint16_t bind_port = 0;  // 0: any
  std::array<std::uint8_t, 32> secret{};
  std::uint32_t connections = 2;            // per link that this side dials
  Nanos heartbeat = 500 * kMillisecond;     // on a connection that has sent nothing for so long
  Nanos silence = 5 * kSecond;              // a link that has received nothing for so long is lost
  Nanos dial_timeout = 10 * kSecond;        // keeps trying to reach a peer for so long
  Nanos handshake_timeout = limits::kHandshakeTimeout;
  CoreOptions core;
};

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
using Event = std::variant<LinkUp, LinkDown, Fenced, Installed, OpEnded>;

struct Outcome {
  Code code = Code::ok;
  std::string message;
  Epoch epoch = 0;
  Sequence sequence = 0;
  std::uint64_t revision = 0;  // state fetch: the revision that was served (or that the donor holds)
  Nanos elapsed = 0;           // from submit to the end
};

struct LinkStats {
  PeerId peer;
  bool up = false;
  std::uint32_t connections = 0;
  std::uint64_t sent_bytes = 0;      // headers and payloads, at the socket
  std::uint64_t received_bytes = 0;
  Nanos sending = 0;    // time with something to send
  Nanos receiving = 0;  // time inside frames being received
};
struct EngineStats {
  std::vector<LinkStats> links;  // also of peers that are gone, until forgotten by drop()
  Core::Tally core;
  std::uint64_t rejected_bad_hello = 0;     // connections of strangers, by what was wrong
  std::uint64_t rejected_garbage = 0;
  std::uint64_t rejected_timeout = 0;
  std::uint64_t rejected_overload = 0;
  std::uint64_t protocol_errors = 0;        // links ended because a known peer broke the format
  std::uint64_t donated_bytes = 0;
};

class Engine {
 public:
  static Result<std::unique_ptr<Engine>> create(const EngineOptions& options);
  ~Engine();  // close(), then joins the reactor

  [[nodiscard]] std::uint16_t port() const;

  // Membership (called by the control thread).
  void expect(const PeerId& peer);  // accept a link from this peer (unknown peers are refused)
  void dial(const PeerId& peer, const std::string& host, std::uint16_t port);
  void drop(const PeerId& peer);  // ends the link (BYE) and forgets the peer
  void fence(std::uint64_t attempt, Change kind);
  void install(const View& view, const Starts& starts, Change kind);

  // Operations. Returns the op's id; its outcome comes through wait()/poll().
  Result<OpId> submit(OpRequest request);  // request.id is assigned here
  void abort(OpId op);
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
