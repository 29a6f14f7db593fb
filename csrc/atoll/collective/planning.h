// From a request and a view to a plan: which one, in what chunks, over which parts. Pure functions;
// all members of a view get the same answer, because it follows from what they share. Any thread.
#pragma once

#include <cstdint>
#include <memory>

#include "atoll/collective/core.h"
#include "atoll/collective/plans/plan.h"

namespace reef {

// Where paths are long a chunk may be smaller than limits::kLeastChunkBytes.
inline constexpr std::uint32_t kLeastLongChunkBytes = 16u << 10;

struct Choice {
  Plan plan = Plan::none;
  std::uint32_t chunk_bytes = 0;
};
[[nodiscard]] Choice choose(const OpRequest& request, const View& view, const CoreOptions& options);

// Whether the request's buffers have the sizes that it needs as rank `self` of so many members.
[[nodiscard]] bool fits(const OpRequest& request, Rank self, Rank members);

// `weights` must outlive the plan, as must the request's buffers. Null for a barrier.
[[nodiscard]] std::unique_ptr<PlanRun> make_plan(const OpRequest& request,
                                                 const OpDescription& description, Rank self,
                                                 const View& view, const Weights& weights);

// Whether every element of the output is written only when nobody needs that of the input any more,
// so that they may be the same memory. A mesh adds by rank, onto others' numbers; doubling keeps its
// operands for its partners; grouped sums up in two places.
[[nodiscard]] bool works_in_place(const OpDescription& description);

}  // namespace reef
