// What a caller asks for: one op on one channel. A value; its checks are pure. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/codec/codec.h"
#include "atoll/wire/description.h"

namespace reef {

// Sizes, for a view of N members and elements of w bytes:
//
//   kind             in                    out
//   all_reduce       count                 count
//   reduce_scatter   count                 this member's part: elements [count*r/N, count*(r+1)/N)
//   all_gather       count                 N * count; with `counts`: counts[r], and their sum
//   all_to_all       N * count             N * count
//   broadcast        count (the root's)    count
//   exchange         count                 count
//   send / recv      count / nothing       nothing / count
//   barrier          nothing               nothing
//
// (With a codec the bounds of a reduce-scatter's parts are rounded down to whole codec blocks.)
struct OpRequest {
  OpId id = 0;  // chosen by the caller, unique
  Channel channel = 0;
  OpKind kind = OpKind::barrier;
  Plan plan = Plan::none;  // none for an all-reduce: the core chooses from size and members
  DType dtype = DType::f32;
  Reduction reduction = Reduction::sum;  // all_reduce, reduce_scatter
  Codec codec;                           // all_reduce, reduce_scatter of f32 sums and averages
  std::uint64_t count = 0;
  std::vector<std::uint64_t> counts;  // all_gather of different sizes: by rank, equal on all members
  PeerId root;                        // broadcast
  PeerId partner;                     // exchange, send, recv
  Sequence tag = 0;                   // of these: matched with the partner's, apart from the channel
  std::span<const std::byte> in;
  std::span<std::byte> out;           // must not overlap in
  std::uint32_t chunk_bytes = 0;      // 0: default
  Nanos deadline = kNever;            // absolute
  // An average is weighted: sum of weight * in over sum of weight. 0: this member contributes
  // nothing and receives the result; allowed with every reduction. Otherwise 1.
  double weight = 1;
  // Told to the other members with START, and to all callers with the outcome; need not agree.
  std::uint64_t note = 0;
  // The view that the sizes were made for. 0: any. In one of other members the op fails on all of them
  // with view_changed.
  Epoch epoch = 0;
  // Among the ops that want to send to the same member, the largest goes first.
  std::int32_t priority = 0;
  // Its OpEnded need not wake whoever waits for events: it comes with the next one (Engine::watch()
  // changes that).
  bool quiet = false;
  // All-reduce, broadcast: `in` and `out` are the same memory, and the caller can do without the
  // input when the op fails. An op that has begun so never runs again: it fails with view_changed.
  bool overwrite = false;
  // On failure `out` gets `in` back: the caller's buffer is one, and `in` a copy of it.
  bool restore = false;
  std::shared_ptr<const void> keep;  // holds `in`, if that is not the caller's memory
};

// Why no view could run it, if so: sizes, alignment, overlap, what does not go together. All that
// can be known without a view.
[[nodiscard]] Status check_request(const OpRequest& request);

[[nodiscard]] bool is_pairwise(OpKind kind);  // exchange, send, recv: apart from the channel's order
[[nodiscard]] bool is_reducing(OpKind kind);

// Input and output are the same memory.
[[nodiscard]] bool in_place(const OpRequest& request);
// Copies the input, so that it is still there when the op has to run again, or fails.
void set_input_aside(OpRequest& request);

// Of the counts of an all-gather; 0 of none.
[[nodiscard]] std::uint64_t digest_of(std::span<const std::uint64_t> counts);

}  // namespace reef
