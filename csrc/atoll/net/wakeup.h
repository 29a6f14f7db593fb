// An eventfd as a bell: ring() from any thread makes it readable, silence() makes it unreadable.
#pragma once

#include "atoll/base/result.h"
#include "atoll/net/fd.h"

namespace reef {

class Wakeup {
 public:
  static Result<Wakeup> create();
  void ring() const;
  void silence() const;
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  explicit Wakeup(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace reef
