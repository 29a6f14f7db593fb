#include "atoll/net/wakeup.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

namespace reef {

Result<Wakeup> Wakeup::create() {
  Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd.valid()) {
    const int reason = errno;
    return Error{Code::io, reason, std::string("cannot create an eventfd: ") + strerror(reason)};
  }
  return Wakeup(std::move(fd));
}

void Wakeup::ring() const {
  const std::uint64_t one = 1;
  // EAGAIN means that the counter is full: it is readable, which is all that is wanted.
  const ssize_t written = ::write(fd_.get(), &one, sizeof one);
  check(written == sizeof one || errno == EAGAIN, "Wakeup::ring: the eventfd is broken");
}

void Wakeup::silence() const {
  std::uint64_t count = 0;
  const ssize_t got = ::read(fd_.get(), &count, sizeof count);
  check(got == sizeof count || errno == EAGAIN, "Wakeup::silence: the eventfd is broken");
}

}  // namespace reef
