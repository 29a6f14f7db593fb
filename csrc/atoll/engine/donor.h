// The donor's side of state transfer: what is published, and the answers to requests. Pure; the
// reactor's thread. Published memory is held by whatever still sends from it.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <variant>

#include "atoll/engine/engine.h"
#include "atoll/net/send_queue.h"
#include "atoll/wire/frame.h"

namespace reef {

class Donor {
 public:
  void publish(std::shared_ptr<const Engine::Published> state) { state_ = std::move(state); }
  // What to send for a STATE_REQUEST of `length` bytes, when the peer has `outstanding` others: the
  // bytes, or a STATE_NACK.
  [[nodiscard]] std::variant<Donation, OutFrame> answer(const FrameHeader& request,
                                                        std::uint64_t length,
                                                        std::size_t outstanding) const;

 private:
  std::shared_ptr<const Engine::Published> state_;
};

}  // namespace reef
