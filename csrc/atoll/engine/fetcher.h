// The joiner's side of state transfer as a pure state machine: requests out, bytes in.
//
// Thread: none of its own; the reactor's. I/O: none; actions come out of next().
// Ownership: a request's `out` is its own until its FetchEnd; on that the shell must first stop
//   receiving into it.
// A request that ended early keeps its place among those outstanding at the donor until the donor's
// answer is over, because the donor counts it for so long, too.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/net/connection.h"
#include "atoll/wire/frame.h"

namespace reef {

inline constexpr std::uint64_t kAnyRevision = UINT64_MAX;

struct FetchRequest {
  OpId op = 0;  // also the request id on the wire
  PeerId donor;
  std::uint64_t revision = kAnyRevision;
  std::uint32_t buffer = 0;
  std::uint64_t offset = 0;
  std::span<std::byte> out;
  Nanos deadline = kNever;
};
struct FetchAsk {  // send a STATE_REQUEST
  PeerId to;
  FrameHeader header;
  std::uint64_t length = 0;
};
struct FetchEnd {
  OpId op = 0;
  Code code = Code::ok;
  std::string message;
  std::uint64_t revision = 0;
  std::uint64_t length = 0;
};
using FetchAction = std::variant<FetchAsk, FetchEnd>;

class Fetcher {
 public:
  void start(const FetchRequest& request);
  [[nodiscard]] bool owns(OpId op) const { return fetches_.contains(op); }
  void abort(OpId op);
  void close();

  // STATE_DATA and STATE_NACK of `from`: where a payload goes, and that a whole frame has arrived.
  // A frame for which place() was asked will come again.
  void displaced(const PeerId& from, const FrameHeader& header);
  Destination place(const PeerId& from, const FrameHeader& header);
  Status deliver(const PeerId& from, const FrameHeader& header,
                 std::span<const std::byte> payload);
  void link_down(const PeerId& peer);
  // Deadlines. Returns when to call again at the latest.
  Nanos tick(Nanos now);

  bool next(FetchAction& action);

 private:
  struct Fetch {
    FetchRequest request;
    bool asked = false;
    bool ended = false;                        // its outcome is out; the donor's answer is not over
    std::uint64_t announced = 0;               // bytes of the frames whose headers have come
    std::uint64_t received = 0;                // bytes of whole frames
    std::optional<std::uint64_t> total;        // known since the last frame's header
    std::optional<std::uint64_t> revision;     // that the donor serves
  };
  struct Donor {
    std::size_t outstanding = 0;
    std::deque<OpId> waiting;
  };

  Fetch* find(const PeerId& from, const FrameHeader& header);
  [[nodiscard]] static bool fits(const Fetch& fetch, const FrameHeader& header);
  [[nodiscard]] static bool answer_is_over(const Fetch& fetch);
  void announce(Fetch& fetch, const FrameHeader& header);
  void end(Fetch& fetch, Code code, std::string message);
  void forget(OpId op);
  void ask_more(const PeerId& donor);
  void deliver_nack(Fetch& fetch, std::uint64_t held);

  std::map<OpId, Fetch> fetches_;
  std::map<PeerId, Donor> donors_;
  std::deque<FetchAction> actions_;
};

}  // namespace reef
